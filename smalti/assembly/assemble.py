"""From a validated recipe to objects: the untrained model, and the trainer that runs the recipe."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smalti.assembly.columns import asked_columns, condition_of, require_columns
from smalti.assembly.fine_tuning import apply_start
from smalti.assembly.fitness import smallest_side
from smalti.assembly.pictures import TokenPictures
from smalti.assembly.recipe import Recipe
from smalti.assembly.sections import DataSection, ValidationSection
from smalti.assembly.tokens import require_same_tokenizer, require_same_tokens
from smalti.data._labels import with_classes
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.engine.samples import sample_images
from smalti.engine.settings import GENERATOR, EngineSettings
from smalti.engine.trainer import Trainer
from smalti.engine.validation import Validation
from smalti.evaluation._crops import Framing
from smalti.evaluation.protocol import protocol_named
from smalti.models._decoder_of import FILE, DecodedBy
from smalti.nn.distributed import rank, world_size
from smalti.objectives.phases import DiscriminatorPhase, GeneratorPhase, Phase
from smalti.outputs import Batch, predicts_tokens


def build_model(recipe: Recipe) -> nn.Module:
    """The recipe's model with fresh weights, drawn from the recipe's seed; the global generators are left alone."""
    model: nn.Module = _seeded(recipe, "model")
    return model


def build_phases(recipe: Recipe, model: nn.Module) -> dict[str, Phase]:
    """The phases of a recipe around its model; the discriminator is built here."""
    discriminator = _seeded(recipe, "discriminator") if "discriminator" in recipe.sections else None
    condition = condition_of(discriminator)
    teachers = {name: spec.build() for name, spec in recipe.teachers.items()}
    terms = {player: [term.build(name) for name, term in of.items()] for player, of in recipe.terms.items()}
    generator = GeneratorPhase(
        model, terms["generator"], discriminator=discriminator, teachers=teachers, condition=condition
    )
    phases: dict[str, Phase] = {GENERATOR: generator}
    if discriminator is not None:
        phases["discriminator"] = DiscriminatorPhase(
            discriminator, terms["discriminator"], model=model, condition=condition
        )
    return phases


def assemble(recipe: Recipe, out: str | Path, *, quiet: bool = False) -> Trainer:
    """The trainer of a recipe; reads the data source, draws the weights, starts nothing.

    Args:
        recipe: validated.
        out: the run folder.
        quiet: show no progress.
    """
    settings: EngineSettings = recipe.specs["engine"].build()
    data: DataSection = recipe.specs["data"].build()
    optim = recipe.specs["optim"].build()
    model = build_model(recipe)
    phases = build_phases(recipe, model)
    discriminator = getattr(phases.get("discriminator"), "network", None)
    asked = asked_columns(recipe, model, discriminator)
    require_columns(asked, data.source, "data.source")
    require_same_tokens(model, data.source, "data.source")
    classes = max(getattr(network, "num_classes", 0) for network in (model, discriminator))
    held_out: ValidationSection | None = spec.build() if (spec := recipe.specs.get("validation")) else None
    if held_out is not None:
        require_same_tokens(model, held_out.data.source, "validation.data.source")
        require_same_tokenizer(data.source, held_out.data.source, "validation.data.source")
    draws_tokens = settings.sample_every > 0 and predicts_tokens(model)
    sources = {"data.source": data.source} | ({"validation.data.source": held_out.data.source} if held_out else {})
    return Trainer(
        phases=phases,
        model=model,
        loader=partial(
            BatchLoader,
            with_classes(data.source, classes, "data.source"),
            data.transform,
            batch_size=data.batch_size,
            seed=settings.seed,
            workers=data.workers,
        ),
        optimizers={name: getattr(optim, name) for name in phases},
        settings=settings,
        out=out,
        cycle=recipe.cycle,
        validation=_validation(held_out, model, phases, asked, classes) if held_out else None,
        recipe=recipe.plain(),
        sources=sources,
        quiet=quiet,
        paint=TokenPictures.of(model, data.source) if draws_tokens else sample_images,
        companions=_companions(data.source),
    )


def _companions(source: Any) -> dict[str, str]:
    """What goes with a model that learns from ``source``: which tokenizer its tokens are of, if it says so."""
    tokenizer = getattr(source, "tokenizer", None)
    return {} if tokenizer is None else {FILE: DecodedBy.of(tokenizer).text()}


def _validation(
    section: ValidationSection, model: nn.Module, phases: Mapping[str, Phase], asked: dict[str, str], classes: int
) -> Validation:
    data = section.data
    names = tuple(getattr(data.source, "names", ()))  # a source from elsewhere need not name its items
    require_columns(asked, data.source, "validation.data.source")
    source = with_classes(data.source, classes, "validation.data.source")
    protocol = None if section.protocol is None else protocol_named(section.protocol)
    transform: Any = data.transform if protocol is None else Framing(protocol)

    def batches() -> Iterator[Batch]:
        return evaluation_batches(source, transform, data.batch_size, rank(), world_size())

    left_out: dict[str, str] = {}

    def measure(trained: nn.Module) -> Mapping[str, Any]:
        from smalti.evaluation.passing import examine_under
        from smalti.metrics.evaluation import examine

        if protocol is None:
            factor = getattr(data.source, "factor", None)
            found = examine(trained, batches(), section.metrics, names=names, factor=factor)
        else:
            found = examine_under(protocol, trained, batches(), section.metrics, names)
        left_out.update(found.left_out)
        return found.values

    return Validation(
        batches=batches,
        settings=section,
        measure=measure if section.metrics else None,
        images=names,
        multiple=getattr(model, "factor", 1),
        smallest=_smallest(phases),
        left_out=left_out,
    )


def _smallest(phases: Mapping[str, Phase]) -> int:
    """The least height and width that the discriminator, the losses and the teachers can look at."""
    losses = [term.loss for phase in phases.values() for term in phase.terms]
    judges = [phase.network for name, phase in phases.items() if name != GENERATOR]
    teachers = [teacher for phase in phases.values() if isinstance(phase, GeneratorPhase) for teacher in phase.teachers]
    return smallest_side([*judges, *losses, *teachers])


def _seeded(recipe: Recipe, section: str) -> Any:
    """Builds a section's network from its own stream of the recipe's seed, so that one does not move the other."""
    seed = recipe.specs["engine"].arguments.get("seed", 0)
    with torch.random.fork_rng():
        torch.manual_seed((seed * 1_000_003 + sum(map(ord, section))) % 2**63)
        network = recipe.specs[section].build()
    if section in recipe.starts:
        apply_start(section, recipe.starts[section], network)
    return network
