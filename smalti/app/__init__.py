"""App: models in a browser on this machine: pictures through tokenizers, tokens edited, images made by generators.

>>> from smalti.app import Maker, Slider, serve
"""

from smalti.app.makers import Maker, Slider
from smalti.app.server import serve

__all__ = ["Maker", "Slider", "serve"]
