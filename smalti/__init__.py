"""smalti trains, measures, converts and uses image autoencoders and visual tokenizers.

>>> import smalti
>>> model = smalti.build("tiny-vqvae")
>>> model.factor
4
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.engine.result import RunResult
    from smalti.models.autoencoder import Autoencoder

__version__ = "0.1.0"
__all__ = ["Autoencoder", "build", "load", "train"]

_LAZY = {"Autoencoder": "smalti.models.autoencoder"}


def __getattr__(name: str) -> Any:
    """Public classes are imported when they are first asked for, so that ``import smalti`` costs no torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'smalti' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def load(path: str | Path, *, format: str = "auto", trust_code: bool = False, map_location: str = "cpu") -> Any:
    """A trained model, in evaluation mode: a run, a saved model, a repository of the Hub, or a foreign checkpoint.

    An ``Autoencoder``, or the generator of a GAN.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors``, a run folder that holds one as ``model``,
            ``owner/name`` on the Hub, or a checkpoint of latent-diffusion, taming, LlamaGen, FQGAN or diffusers.
        format: ``smalti``, or one of those (``smalti convert --help`` lists them); ``auto`` tells it from the keys.
        trust_code: whether its configuration may name classes outside smalti, whose import runs their code.
        map_location: device to load to.

    Raises:
        UserError: naming the file that is missing, damaged, unsafe, or does not fit.
    """
    from smalti.interop.opening import open_model

    return open_model(path, format, trust_code=trust_code, map_location=map_location)


def build(recipe: str | Path, overrides: Sequence[str] = (), *, trust_code: bool = False) -> Any:
    """The untrained model of a recipe, its weights drawn from the recipe's seed.

    Args:
        recipe: a shipped name such as ``vqgan-f16`` or ``tiny-vqvae``, or a path to a YAML file.
        overrides: ``section.key=value`` each, as for ``--set``.
        trust_code: whether saved networks that the recipe starts from may name classes outside smalti.

    Raises:
        ConfigError: listing every problem of the recipe.
    """
    from smalti.assembly.assemble import build_model
    from smalti.assembly.recipe import load_recipe

    return build_model(load_recipe(recipe, overrides, trust_code=trust_code))


def train(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    trust_code: bool = False,
    reschedule: bool = False,
    allow_changed_data: bool = False,
) -> "RunResult":
    """Trains a recipe and returns how it ended; the same as ``smalti train``.

    Args:
        recipe: a shipped name or a path to a YAML file.
        overrides: ``section.key=value`` each, as for ``--set``.
        data: folder of images that replaces the recipe's data.
        out: run folder; by default ``runs/<recipe>``.
        resume: continue the run in ``out``, if there is one.
        quiet: show no progress.
        trust_code: whether saved networks that the recipe starts from may name classes outside smalti.
        reschedule: let another ``max_steps`` move the learning rates of a resumed run.
        allow_changed_data: resume although images were added, lost, renamed or changed since.

    Raises:
        UserError: for what can be mended: a recipe with problems, a folder in use, a run that diverges.
    """
    from smalti.assembly.assemble import assemble
    from smalti.assembly.recipe import load_recipe

    read = load_recipe(recipe, overrides, data, trust_code=trust_code)
    trainer = assemble(read, out or Path("runs") / read.name, quiet=quiet)
    return trainer.run(resume=resume, reschedule=reschedule, allow_changed_data=allow_changed_data)
