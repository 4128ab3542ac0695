"""A bottleneck with one codebook of rows, in a line."""

from typing import Any

from smalti.bottlenecks._adapter import AdapterOptions
from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.quantizers.nearest import Nearest


def one_codebook(in_channels: int, size: int, channels: int, *, projection: bool = True, **options: Any) -> Tokens:
    """A 1x1 convolution into code space if it is asked for, and the nearest row."""
    quantizer = Nearest(size=size, channels=channels, **options)
    return Tokens(in_channels=in_channels, codebooks={"codebook": Branch(quantizer=quantizer, projection=projection)})


def the_quantizer(bottleneck: Any) -> Nearest:
    """The only quantizer of a bottleneck."""
    [(_, quantizer)] = bottleneck.quantizers()
    return quantizer  # type: ignore[no-any-return]


def branch(size: int, channels: int, *, adapter: AdapterOptions | None = None, **options: Any) -> Branch:
    """The way to a codebook of rows."""
    return Branch(quantizer=Nearest(size=size, channels=channels, **options), adapter=adapter)
