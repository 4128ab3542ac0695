"""Which format a file is of, told from its keys; and why it is none that can be imported."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.interop import Format
from smalti.interop._classes import refuse_class
from smalti.registry import UserError, names, resolve, suggest

OURS = "smalti"
AUTO = "auto"
DIFFUSERS = "diffusers"
ALIASES = {
    "taming": "latent_diffusion",
    "compvis": "latent_diffusion",
    "stable_diffusion": "latent_diffusion",
    "ldm": "latent_diffusion",
    "seed_voken": "ibq",
}
# Networks that people have beside a tokenizer, or in its place: pattern of a key -> what it is.
OTHERS = (
    (
        r"(vae\.)?((taesd_)?(encoder|decoder)\.)?(layers\.)?\d+\.conv\.0\.weight$",
        "AutoencoderTiny (TAESD), which is not read",
    ),
    (r"(encoder\.down_blocks\.\d+\.\d+\.|encoder\.stages\.\d+\.)", "AutoencoderDC (DC-AE), which is not read"),
    (r"tok_embeddings", "a model of language, and none of images"),
    (r"model\.diffusion_model\.", "a diffusion model without an autoencoder in it"),
    (r"down_blocks\.0\.(resnets|attentions)\.", "a diffusion model's U-Net, and no autoencoder"),
    (r"main\.0\.", "a discriminator, and no autoencoder"),
    (r"blocks\.0\.", "a discriminator or transformer, and no autoencoder"),
    (r"net\.slice1\.", "LPIPS, and no autoencoder"),
    (r"(single_)?transformer_blocks\.", "a diffusion transformer, and no autoencoder"),
)


def formats() -> tuple[str, ...]:
    """Names of the foreign formats, as the command line writes them."""
    return tuple(name.replace("_", "-") for name in names(Format))


def format_named(name: str) -> Format:
    """The format of a name or alias, with ``-`` or ``_``.

    Raises:
        UserError: if there is none, with the nearest name.
    """
    plain = name.replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in names(Format):
        known = [OURS, *formats(), *(alias.replace("_", "-") for alias in ALIASES)]
        raise UserError(f"unknown format {name!r}{suggest(name, known)}")
    found: Format = resolve(plain, Format)()
    return found


def recognise(keys: Collection[str], asked: str, where: Path) -> Format:
    """The format of a state dict with these keys.

    Args:
        keys: of the autoencoder's state dict.
        asked: a format's name, or ``auto``.
        where: the file, for messages.

    Raises:
        UserError: if it is none that is known, another than ``asked``, or one that cannot be imported.
    """
    fitting = _fitting(keys)
    if asked != AUTO:
        wanted = format_named(asked)
        if not wanted.recognises(keys):
            looks = f"; it looks like {fitting[0]}" if fitting else f"; {_what(keys)}"
            raise UserError(f"{where}: not {wanted.title}{looks}")
        found = wanted
    elif not fitting:
        raise UserError(f"{where}: no known format; {_what(keys)}. Known: {', '.join(formats())}")
    else:
        found = format_named(fitting[0])
    reason = found.refuses(keys)
    if reason is not None:
        raise UserError(f"{where}: {found.title}, but {reason}")
    return found


def refuse_other(state: Mapping[str, Tensor], beside: Mapping[str, Any], where: Path) -> None:
    """Refuses what keys alone do not show: networks whose configuration names another class, and those of videos.

    Args:
        state: of the checkpoint.
        beside: the configuration beside it.
        where: the file, for messages.

    Raises:
        UserError: naming what it is.
    """
    fitting = _fitting(state.keys())
    if fitting in ([], [DIFFUSERS]):  # else it says nothing about these weights: a folder of downloads
        refuse_class(beside, where)
    over_time = [key for key, value in state.items() if not value.is_nested and value.ndim == 5 and "coder." in key]
    if over_time:
        raise UserError(
            f"{where}: an autoencoder of videos, {over_time[0]} is a convolution over time; expected images"
        )


def _fitting(keys: Collection[str]) -> list[str]:
    """Names of the formats that a file with these keys may be of, unless somebody says more."""
    found = {name: format_named(name) for name in formats()}
    return [name for name, format in found.items() if not format.by_name_only and format.recognises(keys)]


def _what(keys: Collection[str]) -> str:
    for pattern, what in OTHERS:
        if any(re.match(pattern, key) for key in keys):
            return f"it looks like {what}"
    return f"its keys begin with {', '.join(list(keys)[:4])}"
