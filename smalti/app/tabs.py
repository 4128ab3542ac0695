"""What each part of the playground shows and does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gradio
import torch
from torch import Tensor

from smalti.app.editing import Edit, all_mean, decoded, masked, planes_of, swapped, with_code
from smalti.app.makers import Maker, sliders_of
from smalti.app.pictures import difference, fitted, picture, tensor_of, tile_of, token_map, told
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

MAX_PIXELS = 50_000_000  # of a file; one with more is not decoded
MOST_IMAGES = 64
ALL = "all in turn"

_T = TypeVar("_T")


def friendly(work: Callable[..., _T]) -> Callable[..., _T]:
    """The same function, whose mistakes of the user are shown on the page."""

    def worked(*arguments: Any) -> _T:
        try:
            return work(*arguments)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return worked


def reconstruct(models: Mapping[str, Autoencoder], longest: int) -> None:
    """A picture through all models, side by side."""
    with gradio.Row():
        given = gradio.Image(
            label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=320
        )
    shown: list[Any] = []
    with gradio.Row(equal_height=False):
        for name in models:
            with gradio.Column(min_width=280):
                gradio.Markdown(f"### {name}")
                shown.append(gradio.ImageSlider(label="original | reconstruction", format="png", interactive=False))
                shown.append(gradio.Markdown(elem_classes="told"))
                shown.append(gradio.Image(label="difference, 4 times as bright", format="png", interactive=False))

    def work(path: str | None) -> list[Any]:
        if path is None:
            return [None, "", None] * len(models)
        image = fitted(Path(path), longest, [model.factor for model in models.values()], MAX_PIXELS)
        found: list[Any] = []
        for model in models.values():
            original = tensor_of(image, model)
            with torch.inference_mode():
                code = model.encode(original)
                made = model.decode(code.latent)
            found.append((picture(original), picture(made)))
            found += [told(model, original, made, code.indices), difference(original, made)]
        return found

    given.change(friendly(work), given, shown, api_name="reconstruct")


@dataclass
class Desk:
    """What a reader works on.

    Args:
        model: its name.
        original: the picture (1, C, H, W).
        edits: all tokens so far, the newest last; the first are those of the picture.
        places: rows and columns that were chosen, at most two.
    """

    model: str
    original: Tensor
    edits: list[Edit]
    places: list[tuple[int, int]] = field(default_factory=list)


def tokens(models: Mapping[str, Autoencoder], longest: int) -> None:
    """The tokens of a picture, to be exchanged, set and replaced."""
    names = list(models)
    first = planes_of(models[names[0]])
    desk = gradio.State(None)
    with gradio.Row():
        with gradio.Column(min_width=280):
            given = gradio.Image(
                label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220
            )
            model = gradio.Dropdown(names, value=names[0], label="Model")
            plane = gradio.Dropdown(first, value=first[0], label="Codebook")
            gradio.Markdown("Click a token, then another: they are A (black) and B (white).")
            code = gradio.Number(0, label="Code", precision=0, minimum=0)
            with gradio.Row():
                buttons = {
                    what: gradio.Button(label, size="sm", min_width=110)
                    for what, label in (
                        ("swap", "Swap A and B"),
                        ("code", "Set A to the code"),
                        ("mask", "Mean from A to B"),
                        ("mean", "Mean everywhere"),
                        ("undo", "Undo"),
                        ("reset", "Start again"),
                    )
                }
        with gradio.Column(min_width=320, scale=2):
            chart = gradio.Image(
                label="tokens, a colour for each code", format="png", interactive=False, elem_classes="pixels"
            )
            result = gradio.ImageSlider(label="original | decoded", format="png", interactive=False)
            words = gradio.Markdown(elem_classes="told")
    shown = [desk, chart, result, words]

    def view(at: Desk | None, plane: str) -> tuple[Any, Any, Any, str]:
        if at is None:
            return None, None, None, ""
        owner, edit = models[at.model], at.edits[-1]
        made, number = decoded(owner, edit), planes_of(owner).index(plane)
        marks = "; ".join(
            f"{letter}: row {row}, column {column}, code {int(edit.indices[0, number, row, column])}"
            for letter, (row, column) in zip("AB", at.places, strict=False)
        )
        text = told(owner, at.original, made, edit.indices) + (f"\n\n{marks}" if marks else "")
        squares = token_map(edit.indices[0, number], at.places, edit.means.get(plane))
        return at, squares, (picture(at.original), picture(made)), text

    def take(path: str | None, name: str) -> tuple[Any, ...]:
        choices = planes_of(models[name])
        chosen = gradio.Dropdown(choices, value=choices[0])
        if path is None:
            return *view(None, choices[0]), chosen
        owner = models[name]
        original = tensor_of(fitted(Path(path), longest, [owner.factor], MAX_PIXELS), owner)
        with torch.inference_mode():
            indices = owner.encode(original).indices
        assert indices is not None  # only models with codebooks are here
        return *view(Desk(name, original, [Edit(indices=indices.cpu())]), choices[0]), chosen

    def point(at: Desk | None, plane: str, event: gradio.SelectData) -> tuple[Any, ...]:
        if at is not None:
            tile = tile_of(*at.edits[-1].indices.shape[-2:])
            place = (int(event.index[1]) // tile, int(event.index[0]) // tile)
            at.places = [place] if len(at.places) != 1 else [*at.places, place]
        return view(at, plane)

    def act(what: str) -> Callable[[Desk | None, str, float], tuple[Any, ...]]:
        def work(at: Desk | None, plane: str, code: float) -> tuple[Any, ...]:
            if at is None:
                raise UserError("there is no picture yet: drop one")
            edited(at, models[at.model], what, plane, int(code or 0))
            return view(at, plane)

        return work

    for trigger in (given.change, model.change):
        trigger(friendly(take), [given, model], [*shown, plane], api_name=False)
    plane.change(friendly(view), [desk, plane], shown, api_name=False)
    chart.select(point, [desk, plane], shown, api_name=False)
    for what, button in buttons.items():
        button.click(friendly(act(what)), [desk, plane, code], shown, api_name=False)


def edited(at: Desk, model: Autoencoder, what: str, plane: str, code: int) -> None:
    """Changes what is on a desk.

    Args:
        at: the desk.
        model: whose tokens they are.
        what: swap, code, mask, mean, undo or reset.
        plane: name of the index plane.
        code: for ``code``.

    Raises:
        UserError: if too few places were chosen, or there is no such code.
    """
    if what in {"undo", "reset"}:
        at.edits = at.edits[:1] if what == "reset" or len(at.edits) == 1 else at.edits[:-1]
        return
    needed = {"swap": 2, "mask": 2, "code": 1, "mean": 0}[what]
    if len(at.places) < needed:
        raise UserError(f"choose {'a token' if needed == 1 else 'two tokens'} on the map first")
    now, number = at.edits[-1], planes_of(model).index(plane)
    if what == "swap":
        new = swapped(now, number, at.places[0], at.places[1])
    elif what == "code":
        new = with_code(now, number, at.places[0], code, model.codebook_sizes[plane])
    elif what == "mask":
        new = masked(now, plane, at.places[0], at.places[1])
    else:
        new = all_mean(now, plane)
    at.edits = [*at.edits, new]


def generate(makers: Mapping[str, Maker]) -> None:
    """Images of all generators, side by side, from the same seeds."""
    extra = sliders_of(list(makers.values()))
    classes = max(maker.num_classes for maker in makers.values())
    with gradio.Row():
        seed = gradio.Slider(0, 100_000, value=0, step=1, label="Seed")
        count = gradio.Slider(1, MOST_IMAGES, value=16, step=1, label="Images")
        label = gradio.Dropdown([ALL, *map(str, range(classes))], value=ALL, label="Class", visible=classes > 0)
    sliders = [
        gradio.Slider(slider.low, slider.high, value=slider.value, step=slider.step, label=slider.label)
        for slider in extra
    ]
    button = gradio.Button("Make", variant="primary")
    sheets = []
    with gradio.Row():
        for name in makers:
            with gradio.Column(min_width=280):
                sheets.append(gradio.Image(label=name, format="png", interactive=False, elem_classes="pixels"))

    def work(seed: float, count: float, label: str, *values: float) -> Any:
        chosen = None if label == ALL else int(label)
        named = {slider.name: value for slider, value in zip(extra, values, strict=True)}
        found = [maker.sheet(int(seed), int(count), chosen, named) for maker in makers.values()]
        return found if len(found) > 1 else found[0]

    inputs = [seed, count, label, *sliders]
    button.click(friendly(work), inputs, sheets, api_name="generate")
    for control in (seed, count, *sliders):
        control.release(friendly(work), inputs, sheets, api_name=False)
    label.change(friendly(work), inputs, sheets, api_name=False)
