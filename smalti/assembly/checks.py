"""What can be known of a whole recipe before data or weights: do its sections fit each other?

Networks are built on the meta device, where tensors have shapes and no memory, so that a width that does not fit is
found here and not in the first step.
"""

import inspect
from collections.abc import Collection, Iterator
from typing import Any

from smalti.assembly.columns import given_columns, has_images, held_out_problems, training_problems
from smalti.assembly.fitness import fitness_problems, image_shape
from smalti.assembly.limits import limit_problems
from smalti.assembly.rehearsal import can_be_rehearsed, known_values, objection, required
from smalti.assembly.sections import PLAYERS, Recipe
from smalti.assembly.tokens import known_tokens, token_problems
from smalti.config import ConfigError, Problem, Spec
from smalti.data.transforms import Transform
from smalti.engine.monitor import mode_of
from smalti.engine.settings import PhaseOptimizer, parse_cycle
from smalti.evaluation._metrics import contradiction
from smalti.evaluation.protocol import protocol_named
from smalti.nn.budget import within_budget
from smalti.nn.meta import is_of_meta, on_meta_device
from smalti.objectives.graph import Graph
from smalti.objectives.names import DISCRIMINATOR, NEEDS_DISCRIMINATOR, compares_with_data, is_constant
from smalti.objectives.term import Term
from smalti.objectives.weight import Plateau
from smalti.registry import Phase, UserError, short_name

MODEL_WORDS = ("judged", "last_layer", "training_forward")  # what the engine asks of any model


def graph_problems(recipe: Recipe) -> list[Problem]:
    """Everything that is wrong between the sections of a recipe whose sections were read."""
    problems: list[Problem] = []
    model = on_meta(recipe.specs.get("model"), problems)
    discriminator = on_meta(recipe.specs.get("discriminator"), problems)
    for find in (_players, _cycle, _optimizers, _monitor, _protocol, _plateaus):
        problems += find(recipe)
    problems += _names(recipe, model)
    for section in ("data", "validation"):
        problems += _images(recipe, section, model, discriminator)
    problems += limit_problems(recipe, model)
    problems += training_problems(recipe, model)
    problems += token_problems(recipe, model)
    problems += _condition(recipe, discriminator)
    problems += held_out_problems(recipe, model, discriminator)
    problems += _labels(recipe, model, discriminator)
    problems += _channels(recipe, model, discriminator)
    broken = {problem.place for problem in problems}
    problems += _losses(recipe, model, broken)
    broken |= {problem.place for problem in problems}
    problems += [problem for problem in fitness_problems(recipe, model, discriminator) if problem.place not in broken]
    return problems


def on_meta(spec: Any, problems: list[Problem]) -> Any:
    """The network of a spec without its memory; None, with the problem noted, if it refuses to be built."""
    if not isinstance(spec, Spec):
        return None
    try:
        with on_meta_device(), within_budget():
            return spec.build()
    except ConfigError as error:
        problems += [] if is_of_meta(error) else error.problems
        return None


def _players(recipe: Recipe) -> Iterator[Problem]:
    judged = "discriminator" in recipe.sections
    asked = "discriminator" in recipe.terms
    if judged and not asked:
        yield Problem("objective.discriminator", "missing: the recipe has a discriminator that no term would train")
    if asked and not judged:
        yield Problem("discriminator", "missing section: objective.discriminator has terms")
    optim = recipe.specs.get("optim")
    if not isinstance(optim, Spec):
        return
    for player in PLAYERS:
        if player in recipe.terms and optim.arguments.get(player) is None:
            yield Problem(f"optim.{player}", f"missing: the {player} phase has no optimizer")
        if player not in recipe.terms and optim.arguments.get(player) is not None:
            yield Problem(f"optim.{player}", f"objective.{player} is missing: there is nothing to optimise")


def _cycle(recipe: Recipe) -> Iterator[Problem]:
    try:
        entries = parse_cycle(recipe.cycle, list(recipe.terms))
    except UserError as error:
        yield Problem("cycle", str(error).removeprefix("cycle: "))
        return
    for player in recipe.terms.keys() - {entry.phase for entry in entries}:
        yield Problem("cycle", f"the {player} phase has terms and never moves")


def _plateaus(recipe: Recipe) -> Iterator[Problem]:
    """Terms that wait for a plateau of what nothing measures."""
    terms = {player: {name: term.static(name) for name, term in of.items()} for player, of in recipe.terms.items()}
    judged = getattr(recipe.model_class, "judged", None)
    acting = [term for term in terms.get("generator", {}).values() if not isinstance(term.start, Plateau)]
    if any(term.role == "optimize" and compares_with_data(term.reads, judged) for term in acting):
        return
    for player, of in terms.items():
        for name in (name for name, term in of.items() if isinstance(term.start, Plateau)):
            why = "no term of the generator that compares with data acts before it: it would never come"
            yield Problem(f"objective.{player}.{name}.start", why)


def _monitor(recipe: Recipe) -> Iterator[Problem]:
    section = recipe.specs.get("validation")
    if not isinstance(section, Spec):
        return
    monitor, mode = section.arguments.get("monitor"), section.arguments.get("mode")
    metrics = {
        name: metric.target
        for name, metric in (section.arguments.get("metrics") or {}).items()
        if isinstance(metric, Spec)
    }
    save = recipe.specs.get("engine")
    if monitor is None and isinstance(save, Spec) and save.arguments.get("save") == "best":
        yield Problem("engine.save", "'best': nothing is monitored; validation.monitor names what decides")
    try:
        if monitor is not None:
            mode_of(monitor, mode, metrics)
    except UserError as error:
        place = "mode" if str(error).startswith("mode=") else "monitor"
        yield Problem(f"validation.{place}", str(error))


def _protocol(recipe: Recipe) -> Iterator[Problem]:
    """What contradicts the protocol of the validation."""
    section = recipe.specs.get("validation")
    if not isinstance(section, Spec) or section.arguments.get("protocol") is None:
        return
    name = section.arguments["protocol"]
    try:
        protocol = protocol_named(name)
    except UserError as error:
        yield Problem("validation.protocol", str(error))
        return
    data = _validation_data(recipe)
    if isinstance(data, Spec) and not has_images(data.arguments.get("source")):
        yield Problem("validation.protocol", f"{name} says how images are cropped, and the held-out data have none")
        return
    if isinstance(data, Spec) and "transform" in data.arguments:
        yield Problem("validation.data.transform", f"protocol {name} says how images are cropped: leave it out")
    for metric, spec in (section.arguments.get("metrics") or {}).items():
        said = contradiction(protocol, short_name(spec.target), spec.arguments) if isinstance(spec, Spec) else None
        if said is not None:
            yield Problem(f"validation.metrics.{metric}", said)


def _names(recipe: Recipe, model: Any) -> Iterator[Problem]:
    target = model if model is not None else recipe.model_class
    if target is None:
        return
    lacking = [word for word in MODEL_WORDS if not (hasattr(recipe.model_class, word) or hasattr(model, word))]
    if lacking:
        yield Problem("model.type", f"no model: it has no {', '.join(lacking)}")
        return
    graph = Graph(
        model=target,
        discriminator="discriminator" in recipe.sections,
        provides=getattr(model, "provides", None),  # a model from elsewhere need not say
        keys=getattr(model, "output_keys", {}),
        teachers=recipe.teacher_names,
        images=has_images(_source(recipe)),
        columns=(*_columns(recipe), *(("noise",) if _draws_noise(recipe, model) else ())),
    )
    for player, terms in recipe.terms.items():
        static = []
        for name, term in terms.items():
            try:
                static.append(term.static(name))
            except (UserError, ValueError) as error:
                yield Problem(term.place, str(error))
        found = graph.check(player, static)
        yield from (problem for problem in found if not _refers_to_broken(recipe, player, problem))
        for one in static:
            place = f"objective.{player}.{one.name}"
            if _is_idle(player, one) and not any(f"{problem.place}.".startswith(f"{place}.") for problem in found):
                yield Problem(place, _IDLE[player])


_IDLE: dict[Phase, str] = {
    "generator": "asks for nothing that the model makes: it would train nothing; role: log reports it",
    "discriminator": "asks for nothing that the discriminator says: it would train nothing; role: log reports it",
}


def _is_idle(player: Phase, term: Term) -> bool:
    """Whether an optimised term depends on nothing that its phase trains."""
    try:
        reads = term.reads
    except UserError:  # its arguments cannot be read: that is said elsewhere
        return False
    if term.role == "log":
        return False
    if player == "discriminator":
        return NEEDS_DISCRIMINATOR.isdisjoint(reads)
    return all(is_constant(name) for name in reads - DISCRIMINATOR)


def _draws_noise(recipe: Recipe, model: Any) -> bool:
    """Whether batches will have a column of noise for the model."""
    noise_shape, shape = getattr(model, "noise_shape", None), image_shape(recipe, model, "data")
    if not callable(noise_shape) or shape is None:
        return False
    try:
        return noise_shape(shape) is not None
    except UserError:
        return True  # of another size: that is said elsewhere


def _refers_to_broken(recipe: Recipe, player: Phase, problem: Problem) -> bool:
    """Whether a reference is only unknown because the term it names has problems of its own."""
    broken = recipe.term_names.get(player, set()) - set(recipe.terms.get(player, {}))
    return any(f"unknown term {name!r}" in problem.message for name in broken)


def _columns(recipe: Recipe) -> tuple[str, ...]:
    return given_columns(_source(recipe))


def _source(recipe: Recipe) -> Any:
    section = recipe.specs.get("data")
    return section.arguments.get("source") if isinstance(section, Spec) else None


def _images(recipe: Recipe, name: str, model: Any, discriminator: Any) -> Iterator[Problem]:
    """Whether the crops of a data section fit the networks."""
    section = _validation_data(recipe) if name == "validation" else recipe.specs.get(name)
    place = "validation.data" if name == "validation" else name
    if not isinstance(section, Spec):
        return
    if not has_images(section.arguments.get("source")):
        yield from _nothing_to_crop(section, place)
        return
    spec = section.arguments.get("transform")
    try:
        transform = spec.build() if isinstance(spec, Spec) else Transform()
    except ConfigError as error:
        yield from error.problems
        return
    if transform.size is None:
        if name == "data":
            yield Problem(f"{place}.transform", "training needs images of one size: give a size and a crop")
        return
    yield from _sides(transform, place, model, discriminator)


def _sides(transform: Transform, place: str, model: Any, discriminator: Any) -> Iterator[Problem]:
    """Whether crops of a known size fit the networks."""
    sides = " x ".join(str(side) for side in transform.shape)
    factor = getattr(model, "factor", 1)
    if any(side % factor for side in transform.shape):
        yield Problem(
            f"{place}.transform.size", f"{sides} pixels: expected both divisible by the model's factor {factor}"
        )
    if transform.buckets is not None and transform.buckets.step % factor:
        step = transform.buckets.step
        yield Problem(f"{place}.transform.buckets.step", f"{step}: expected a multiple of the model's factor {factor}")
    for network, made in (("model", model), ("discriminator", discriminator)):
        exact = getattr(made, "image_size", None)
        if exact is not None and any(tuple(exact) != shape for shape in transform.shapes):
            what = f"{sides} pixels" if transform.buckets is None else "buckets of many sizes"
            yield Problem(f"{place}.transform.size", f"{what}: {network}.image_size is {' x '.join(map(str, exact))}")
            return
    smallest = getattr(discriminator, "smallest_size", 1)
    if (least := min(map(min, transform.shapes))) < smallest:
        sides = sides if transform.buckets is None else f"a bucket with a side of {least}"
        yield Problem(f"{place}.transform.size", f"{sides} pixels: the discriminator needs at least {smallest}")


def _nothing_to_crop(section: Spec, place: str) -> list[Problem]:
    asked = "transform" in section.arguments
    return [Problem(f"{place}.transform", "the source has no images to crop or flip: leave it out")] if asked else []


def _optimizers(recipe: Recipe) -> Iterator[Problem]:
    """Whether each optimizer has a use for its options, and ``lazy_adam`` a lazy term whose turns it spreads."""
    section = recipe.specs.get("optim")
    for player in PLAYERS:
        spec = section.arguments.get(player) if isinstance(section, Spec) else None
        if not isinstance(spec, Spec):
            continue
        options: PhaseOptimizer = spec.build()
        usual, place = PhaseOptimizer(), f"optim.{player}"
        idle = ("betas", "lazy_adam") if options.type == "rmsprop" else ("alpha",)
        for name in idle:
            if getattr(options, name) != getattr(usual, name):
                yield Problem(f"{place}.{name}", f"{getattr(options, name)!r}: {options.type} has no use for it")
        turns = {term.fields.get("every", 1) for term in recipe.terms.get(player, {}).values()}
        if options.lazy_adam not in {None, *turns} and "lazy_adam" not in idle:
            message = f"{options.lazy_adam}: no term of this phase has every: {options.lazy_adam}"
            yield Problem(f"{place}.lazy_adam", message)


def _condition(recipe: Recipe, discriminator: Any) -> Iterator[Problem]:
    columns = _columns(recipe)
    if getattr(discriminator, "condition_channels", 0) and not {"condition", "*"} & set(columns):
        yield Problem("discriminator.condition_channels", "the data has no column 'condition' to give it")


def _labels(recipe: Recipe, model: Any, discriminator: Any) -> Iterator[Problem]:
    """Whether class-conditional networks get labels, and agree on how many classes there are."""
    counts = {
        name: getattr(part, "num_classes", 0) for name, part in (("model", model), ("discriminator", discriminator))
    }
    for name, count in counts.items():
        if count and not {"label", "*"} & set(_columns(recipe)):
            yield Problem(f"{name}.num_classes", f"the data has no column 'label' to give it{_where_from(recipe)}")
    if all(counts.values()) and len(set(counts.values())) > 1:
        yield Problem("discriminator.num_classes", f"{counts['discriminator']}: the model has {counts['model']}")


def _where_from(recipe: Recipe) -> str:
    """How a folder of images gets a column of classes."""
    section = recipe.specs.get("data")
    source = section.arguments.get("source") if isinstance(section, Spec) else None
    can = isinstance(source, Spec) and "table" in inspect.signature(source.target).parameters
    return "; data.source.table names a CSV file with the columns file and label" if can else ""


def _channels(recipe: Recipe, model: Any, discriminator: Any) -> Iterator[Problem]:
    """Whether source, model and discriminator agree on the channels of an image."""
    channels = getattr(model, "image_channels", None)
    if channels is None:
        return
    judged = getattr(discriminator, "in_channels", channels)
    if judged != channels:
        yield Problem("discriminator.in_channels", f"{judged}: expected {channels}, the channels of the model's images")
    for place, section in (("data", recipe.specs.get("data")), ("validation.data", _validation_data(recipe))):
        source = section.arguments.get("source") if isinstance(section, Spec) else None
        if not isinstance(source, Spec) or not has_images(source):
            continue
        given = source.arguments.get("image_channels", getattr(source.target, "image_channels", channels))
        if given != channels:
            images = f"images with {given} channels" if given else "items that are no images"
            yield Problem(f"{place}.source", f"{images}: the model has image_channels={channels}")


def _validation_data(recipe: Recipe) -> Any:
    section = recipe.specs.get("validation")
    return section.arguments.get("data") if isinstance(section, Spec) else None


def _losses(recipe: Recipe, model: Any, broken: Collection[str]) -> Iterator[Problem]:
    """What the constructors of losses and teachers refuse, and the losses themselves where they find unfit sizes."""
    shape = image_shape(recipe, model, "data")
    codebooks = getattr(model, "codebook_terms", {})
    values = known_values(shape, model.judged, codebooks) if shape is not None and hasattr(model, "judged") else {}
    values = {**values, **known_tokens(model)}
    for player, terms in recipe.terms.items():
        for name, term in terms.items():
            problems: list[Problem] = []
            place = f"objective.{player}.{name}"
            made = on_meta(Spec(lambda term=term, name=name: term.build(name), {}, place), problems)
            yield from problems
            if made is None or any(f"{other}.".startswith(f"{place}.") for other in broken):
                continue
            if can_be_rehearsed(made.loss, required(made).values(), values):
                said = objection(term.build(name), values)
                yield from [Problem(place, said)] if said else []
    for name, spec in recipe.teachers.items():
        problems = []
        on_meta(spec, problems)
        yield from (Problem(p.place or f"objective.teachers.{name}", p.message) for p in problems)
