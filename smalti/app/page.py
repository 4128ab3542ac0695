"""The page of the playground: pictures through all models, tokens to edit, images to make."""

from collections.abc import Mapping
from typing import Any

from smalti.app.makers import Maker
from smalti.app.tabs import generate, reconstruct, tokens
from smalti.models.autoencoder import Autoencoder

CSS = """
.gradio-container { width: 100% !important; max-width: 76rem !important; margin: 0 auto !important; }
.models { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.pixels img { image-rendering: pixelated; }
.told p { font-size: .9rem; opacity: .85; }
footer { display: none !important; }
"""
_FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]  # of the system: none is fetched


def theme() -> Any:
    """The look, with the system's own fonts."""
    import gradio

    return gradio.themes.Base(
        primary_hue="blue", neutral_hue="stone", font=_FONT, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


def build(models: Mapping[str, Autoencoder | Maker], *, longest: int) -> Any:
    """The page of some models.

    Args:
        models: name -> an autoencoder or what makes images.
        longest: pixels that the longer side of a picture has at most.
    """
    import gradio

    coders = {name: model for name, model in models.items() if isinstance(model, Autoencoder)}
    makers = {name: model for name, model in models.items() if isinstance(model, Maker)}
    with gradio.Blocks(title="smalti", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gradio.Markdown(f"# smalti\n{', '.join(models)}")
        if coders:
            with gradio.Tab("Reconstruct"):
                reconstruct(coders, longest)
        if any(model.codebook_sizes for model in coders.values()):
            with gradio.Tab("Tokens"):
                tokens({name: model for name, model in coders.items() if model.codebook_sizes}, longest)
        if makers:
            with gradio.Tab("Generate"):
                generate(makers)
    return demo
