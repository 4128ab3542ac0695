"""Which format a file is of, told from its keys; and why it is none that can be imported."""

from collections.abc import Collection
from pathlib import Path

from smalti.interop import Format
from smalti.registry import UserError, names, resolve, suggest

OURS = "smalti"
AUTO = "auto"
ALIASES = {
    "taming": "latent_diffusion",
    "compvis": "latent_diffusion",
    "stable_diffusion": "latent_diffusion",
    "ldm": "latent_diffusion",
}
# Networks that people have beside a tokenizer: what a key begins with -> what it is.
OTHERS = (
    ("tok_embeddings", "a generator of tokens, and no tokenizer"),
    ("model.diffusion_model.", "a diffusion model without an autoencoder in it"),
    ("down_blocks.0.resnets.", "a diffusion model's U-Net, and no autoencoder"),
    ("main.0.", "a discriminator, and no autoencoder"),
    ("blocks.0.", "a discriminator or transformer, and no autoencoder"),
    ("net.slice1.", "LPIPS, and no autoencoder"),
    ("transformer_blocks.", "a diffusion transformer, and no autoencoder"),
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
    fitting = [name for name in formats() if format_named(name).recognises(keys)]
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


def _what(keys: Collection[str]) -> str:
    for beginning, what in OTHERS:
        if any(key.startswith(beginning) for key in keys):
            return f"it looks like {what}"
    return f"its keys begin with {', '.join(list(keys)[:4])}"
