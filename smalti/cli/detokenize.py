"""``smalti detokenize``: a token store -> the images that its tokenizer decodes."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import TrustCode, open_model
from smalti.cli._options import BatchSize, Device, whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.models.autoencoder import Autoencoder
    from smalti.tokens.store import TokenStore


def detokenize(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a token store.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the images.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The tokenizer.", show_default="the path in the store")
    ] = None,
    view: Annotated[
        str | None, typer.Option(metavar="NAME", help="The view of each image to decode.", show_default="the first")
    ] = None,
    limit: Annotated[int | None, whole_number("Decode the first N images only.")] = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Decode a token store back to images.

    Writes OUT/NAME.png under the name of each image. A tokenizer other than the one that wrote the store is refused.

    Example: smalti detokenize tokens --out pictures --limit 16
    """
    from smalti.data.grid import save_grid
    from smalti.tokens.store import TokenStore

    opened = TokenStore.open(store)
    number = 0 if view is None else opened.view_number(view)
    if out.exists() and (not out.is_dir() or (not force and any(out.iterdir()))):
        raise UserError(f"{out} is not empty: choose another folder, or --force to write into it")
    tokenizer = open_tokenizer(opened, model, device, trust_code)
    count = len(opened) if limit is None else min(limit, len(opened))
    for indices, images in decoded(opened, tokenizer, count, number, batch_size):
        for index, image in zip(indices, images, strict=True):
            save_grid(out / picture_name(opened.names[index]), image[None], columns=1)
    typer.echo(f"{count} images -> {out}")


def open_tokenizer(store: "TokenStore", path: str | None, device: str, trust_code: bool = False) -> "Autoencoder":
    """The tokenizer of a store: the one it names, or one from elsewhere with the same weights.

    Raises:
        UserError: if it cannot be loaded, or is another.
    """
    from smalti.nn.hashing import hash_of

    found = open_model(path or store.description.tokenizer.path, device, trust_code)
    store.require(hash_of(found.state_dict()))
    return found


def decoded(
    store: "TokenStore", model: "Autoencoder", count: int, view: int, batch_size: int
) -> "Iterator[tuple[list[int], Tensor]]":
    """Numbers and images (B, C, H, W) of the first so many images of a store, in order, those of one grid together."""
    import torch

    device = next(model.parameters()).device
    for indices in _together(store, count, batch_size):
        arrays = store.read(indices, view)
        with torch.inference_mode():
            if store.codebooks:
                tokens = torch.from_numpy(arrays["indices"].astype("i8")).to(device)
                yield indices, model.decode_indices(tokens)
            else:
                latent = torch.from_numpy(arrays[store.description.arrays[0]].astype("f4")).to(device)
                yield indices, model.decode(latent)


def _together(store: "TokenStore", count: int, batch_size: int) -> Iterator[list[int]]:
    some: list[int] = []
    for index in range(count):
        if some and (len(some) == batch_size or store.grid_of(index) != store.grid_of(some[0])):
            yield some
            some = []
        some.append(index)
    if some:
        yield some


def picture_name(name: str) -> str:
    """Where the picture of an image goes: its name, with ``.png`` behind it if it ends otherwise.

    Raises:
        UserError: for a name that leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or os.path.isabs(name) or not path.name or "\0" in name:
        raise UserError(f"the image {name!r} of the store: its name leads out of the folder")
    return name if path.suffix == ".png" else f"{name}.png"
