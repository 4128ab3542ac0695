"""``smalti app``: models in a browser on this machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.cli._model import TrustCode
from smalti.cli._model import open_any as open_model
from smalti.cli._options import Device, whole_number
from smalti.registry import UserError
from smalti.writing import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from smalti.app import Maker
    from smalti.models._generator import Generator
    from smalti.models._token_model import TokenModel


def app(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Run folders, saved models or Hub repositories of autoencoders and generators.",
            show_default=False,
        ),
    ],
    port: Annotated[
        int | None,
        whole_number("Port on 127.0.0.1.", least=1, most=65_535, show_default="a free one from 7860 on"),
    ] = None,
    longest: Annotated[
        int, whole_number("Shrink pictures whose longer side has more than N pixels.", least=16, most=4096)
    ] = 768,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "auto",
    trust_code: TrustCode = False,
) -> None:
    """Try models in a browser on this machine.

    Reconstruct pictures, edit their tokens and sample from generators; several models are shown side by side. The page
    is served to this machine only, nothing is sent anywhere, and uploaded pictures are deleted at the end. Ctrl-C stops
    it.

    Example: smalti app runs/quickstart runs/wgan-digits
    """
    from smalti.app.server import check_installed, serve

    check_installed()
    twice = next((model for number, model in enumerate(models) if model in models[:number]), None)
    if twice is not None:
        raise UserError(f"{twice} is named twice")
    names = short_names(models)
    opened = {names[model]: playable(model, open_model(model, device, trust_code), trust_code) for model in models}
    serve(opened, port=port, longest=longest, show=show, say=lambda address: typer.echo(f"playground: {address}"))


def short_names(models: "Sequence[str]") -> "Mapping[str, str]":
    """Path -> the last part of it, where that names one model only.

    >>> short_names(["runs/a", "runs/b/", "other/b"])
    {'runs/a': 'a', 'runs/b/': 'runs/b/', 'other/b': 'other/b'}
    """
    short = [printable(model.rstrip("/").rpartition("/")[2]) for model in models]
    return {
        model: name if name and short.count(name) == 1 else printable(model)
        for model, name in zip(models, short, strict=True)
    }


def playable(path: str, model: Any, trust_code: bool = False) -> Any:
    """A model as the playground takes it.

    Raises:
        UserError: if there is nothing to play with.
    """
    from smalti.models._generator import Generator
    from smalti.models._token_model import TokenModel
    from smalti.models.autoencoder import Autoencoder

    if isinstance(model, Autoencoder):
        return model
    if isinstance(model, Generator):
        return maker_of(model)
    if isinstance(model, TokenModel):
        return drawer_of(path, model, trust_code)
    raise UserError(f"{path}: a {type(model).__name__}, expected an autoencoder or a generator")


def maker_of(generator: "Generator") -> "Maker":
    """A generator of noise, with its sliders."""
    import torch

    from smalti.app import Maker, Slider
    from smalti.cli.sample import images_of

    def draw(seed: int, count: int, label: int | None, values: "Mapping[str, float]") -> "Tensor":
        return torch.cat(list(images_of(generator, seed, count, values["truncation"], label)))

    truncation = Slider(
        name="truncation", label="Truncation: below 1, variety is given for quality", low=0, high=1, value=1, step=0.05
    )
    return Maker(draw=draw, num_classes=generator.num_classes, sliders=[truncation])


def drawer_of(path: str, model: "TokenModel", trust_code: bool = False) -> "Maker":
    """A model of tokens and the tokenizer that decodes them, with the sliders of its draws.

    Raises:
        UserError: if the tokenizer is not found, or images are of captions.
    """
    import torch

    from smalti.app import Maker, Slider
    from smalti.cli._token_sampling import token_images
    from smalti.interop.decoding import kept_with, tokenizer_for

    if model.text_length:
        raise UserError(f"{path}: its images are of captions, whose features model.sample(text=...) takes in Python")
    device = str(next(model.parameters()).device)
    tokenizer = tokenizer_for(model, kept_with(path), trust_code=trust_code, device=device)
    most = max(int(size) for size in model.codebooks.values())

    def draw(seed: int, count: int, label: int | None, values: "Mapping[str, float]") -> "Tensor":
        options: dict[str, Any] = {**values, "top_k": int(values["top_k"])}
        classes = None if label is None else [label]
        images = token_images(model, tokenizer, seed=seed, count=count, classes=classes, **options)
        return torch.cat(list(images))

    sliders = [
        Slider(name="temperature", label="Temperature", low=0.05, high=2, value=1, step=0.05),
        Slider(name="top_k", label="Best codes that are drawn from (0: all)", low=0, high=most, value=0, step=1),
        Slider(name="top_p", label="Probability that they have together", low=0.05, high=1, value=1, step=0.05),
    ]
    if model.num_classes:
        sliders.append(Slider(name="guidance", label="Guidance", low=1, high=10, value=1, step=0.1))
    return Maker(draw=draw, num_classes=model.num_classes, sliders=sliders)
