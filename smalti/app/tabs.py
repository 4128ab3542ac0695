"""What each part of the playground shows and does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from smalti.app.desk import Desk, desk_of
from smalti.app.editing import planes_of
from smalti.app.makers import Maker, sliders_of
from smalti.app.pictures import difference, fitted, picture, tensor_of, told
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

MAX_PIXELS = 50_000_000  # of a file; one with more is not decoded
MOST_IMAGES = 64
ALL = "all in turn"
SOURCES = ["upload", "clipboard"]
ACTIONS = {
    "swap": "Swap A and B",
    "mask": "Mean from A to B",
    "mean": "Mean everywhere",
    "undo": "Undo",
    "reset": "Start again",
    "code": "Set A to the code",
}
KEPT = ["fullscreen", "download"]  # buttons of a picture: none that shares it

_T = TypeVar("_T")


def friendly(work: Callable[..., _T]) -> Callable[..., _T]:
    """The same function, whose mistakes of the user are shown on the page."""
    import gradio

    def worked(*arguments: Any) -> _T:
        try:
            return work(*arguments)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return worked


def shown_image(label: str, pixels: bool = False) -> Any:
    """A picture to look at."""
    import gradio

    finish = "pixels" if pixels else None
    return gradio.Image(label=label, format="png", interactive=False, buttons=KEPT, elem_classes=finish)


def reconstruct(models: Mapping[str, Autoencoder], longest: int) -> None:
    """A picture through all models, side by side."""
    import gradio

    shown: list[Any] = []
    with gradio.Row(equal_height=False, elem_classes="models"):
        with gradio.Column(min_width=280):
            gradio.Markdown("### Drop a picture")
            given = gradio.Image(label="Picture", type="filepath", image_mode=None, sources=SOURCES)
        for name in models:
            with gradio.Column(min_width=280):
                gradio.Markdown(f"### {name}")
                both = "original | reconstruction"
                shown.append(gradio.ImageSlider(label=both, format="png", interactive=False, buttons=KEPT))
                shown.append(gradio.Markdown(elem_classes="told"))
                shown.append(shown_image("difference, 4 times as bright"))

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


def tokens(models: Mapping[str, Autoencoder], longest: int) -> None:
    """The tokens of a picture, to be exchanged, set and replaced."""
    import gradio

    names = list(models)
    first = planes_of(models[names[0]])
    desk = gradio.State(None)
    with gradio.Row():
        with gradio.Column(min_width=280):
            given = gradio.Image(label="Picture", type="filepath", image_mode=None, sources=SOURCES, height=240)
            model = gradio.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            plane = gradio.Dropdown(first, value=first[0], label="Codebook")
        with gradio.Column(min_width=320, scale=2):
            chart = shown_image("tokens, a colour for each code", pixels=True)
        with gradio.Column(min_width=320, scale=2):
            result = shown_image("decoded")
            words = gradio.Markdown(elem_classes="told")
    gradio.Markdown("Click a token on the map, then another: they are A (black frame) and B (white frame).")
    with gradio.Row():
        buttons = {what: gradio.Button(label, size="sm", min_width=140) for what, label in ACTIONS.items()}
        code = gradio.Number(0, label="Code", precision=0, minimum=0, min_width=120)
    shown = [desk, chart, result, words]

    def view(at: Desk | None, plane: str) -> tuple[Any, ...]:
        return (None, None, None, "") if at is None else (at, *at.view(plane))

    def take(path: str | None, name: str) -> tuple[Any, ...]:
        choices = planes_of(models[name])
        at = None if path is None else desk_of(Path(path), models[name], longest, MAX_PIXELS)
        return *view(at, choices[0]), gradio.Dropdown(choices, value=choices[0])

    def point(at: Desk | None, plane: str, event: gradio.SelectData) -> tuple[Any, ...]:
        if at is not None:
            at.choose(int(event.index[0]), int(event.index[1]))
        return view(at, plane)

    def act(what: str) -> Callable[..., tuple[Any, ...]]:
        def work(at: Desk | None, plane: str, code: float | None) -> tuple[Any, ...]:
            if at is None:
                raise UserError("there is no picture yet: drop one")
            at.do(what, plane, int(code or 0))
            return view(at, plane)

        return work

    for trigger in (given.change, model.change):
        trigger(friendly(take), [given, model], [*shown, plane], api_name=False)
    plane.input(friendly(view), [desk, plane], shown, api_name=False)
    chart.select(point, [desk, plane], shown, api_name=False)
    for what, button in buttons.items():
        button.click(friendly(act(what)), [desk, plane, code], shown, api_name=False)


def generate(makers: Mapping[str, Maker]) -> None:
    """Images of all generators, side by side, from the same seeds."""
    import gradio

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
    with gradio.Row(elem_classes="models"):
        for name in makers:
            with gradio.Column(min_width=280):
                sheets.append(shown_image(name, pixels=True))

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
