"""How the convolutional formats name an encoder and a decoder; one dialect each."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from smalti.interop import Layout
from smalti.interop._codebooks import USUAL
from smalti.interop._table import Note, Rule, layer

RESBLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
ATTENTION = {"norm": "norm", "q": "q", "k": "k", "v": "v", "proj_out": "out"}
SPATIAL = {"norm_layer": "group", "conv_y": "scale", "conv_b": "shift"}  # parts of a norm there -> here
OWN = (
    Note(
        r"bottleneck\.branches\.\w+\.quantizer\.(window\.|ema_|initialized|updates$)",
        "counters and moving averages of our codebooks",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Names of the parts of a convolutional autoencoder; ``{level}`` and ``{block}`` stand for numbers.

    Args:
        encoder_level: of an encoder level; level 0 is the finest.
        decoder_level: of a decoder level; ``{level}`` in the order of execution, ``{~level}`` counts from the finest.
        block: of a residual block in a level.
        attention: of an attention in a level.
        down: of the strided convolution between two encoder levels.
        up: of the convolution after a doubling.
        middle: first block, attention and second block between the levels and the ends.
        head: last normalisation and last convolution.
        resblock: layers of a residual block there -> here.
        attention_parts: layers of an attention there -> here.
        linear: layers of an attention that are matrices there.
        old_attention_parts: an older spelling, read only.
        spatial_attention_norm: the norm of an attention that is normalised by the latent.
    """

    encoder_level: str
    decoder_level: str
    block: str
    attention: str
    down: str
    up: str
    middle: tuple[str, str, str]
    head: tuple[str, str] = ("norm_out", "conv_out")
    resblock: Mapping[str, str] = field(default_factory=lambda: RESBLOCK)
    attention_parts: Mapping[str, str] = field(default_factory=lambda: ATTENTION)
    linear: tuple[str, ...] = ()
    old_attention_parts: Mapping[str, str] = field(default_factory=dict)
    spatial_attention_norm: str = "spatial_norm"

    def rules(self, layout: Layout, encoder_head: bool = True) -> list[Rule]:
        """The rules of encoder and decoder; ``encoder_head`` is false if the encoder ends at its middle."""
        return [
            *layer("encoder.conv_in", "encoder.conv_in"),
            *self._levels(self.encoder_level, "encoder", self.down, False),
            *self._middle("encoder", layout.encoder_attention, False),
            *(self._head("encoder", False) if encoder_head else ()),
            *layer("decoder.conv_in", "decoder.conv_in"),
            *self._middle("decoder", layout.decoder_attention, layout.spatial),
            *self._levels(self.decoder_level, "decoder", self.up, layout.spatial),
            *self._head("decoder", layout.spatial),
        ]

    def _levels(self, there: str, part: str, resample: str, spatial: bool) -> Iterator[Rule]:
        ours = f"{part}.levels.{{level}}"
        yield from self._block(f"{there}.{self.block}", f"{ours}.blocks.{{block}}", spatial)
        yield from self._attention(f"{there}.{self.attention}", f"{ours}.attentions.{{block}}", spatial)
        yield from layer(f"{there}.{resample}", f"{ours}.resample.conv")

    def _middle(self, part: str, attention: bool, spatial: bool) -> Iterator[Rule]:
        first, between, second = (f"{part}.{name}" for name in self.middle)
        yield from self._block(first, f"{part}.middle.0", spatial)
        if attention:
            yield from self._attention(between, f"{part}.middle.1", spatial)
        yield from self._block(second, f"{part}.middle.{2 if attention else 1}", spatial)

    def _block(self, there: str, ours: str, spatial: bool) -> Iterator[Rule]:
        yield from layer(there, ours, _of_norms(self.resblock) if spatial else self.resblock)

    def _attention(self, there: str, ours: str, spatial: bool) -> Iterator[Rule]:
        parts = self.attention_parts
        if spatial:
            named = {self.spatial_attention_norm if here == "norm" else name: here for name, here in parts.items()}
            parts = _of_norms(named)
        yield from layer(there, ours, parts, linear=self.linear)
        yield from layer(there, ours, self.old_attention_parts, linear=tuple(self.old_attention_parts), old=True)

    def _head(self, part: str, spatial: bool) -> Iterator[Rule]:
        norm, conv = self.head
        yield from layer(f"{part}.{norm}", f"{part}.head.norm", SPATIAL if spatial else None)
        yield from layer(f"{part}.{conv}", f"{part}.head.conv")

    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles of a network with these foreign keys."""
        pattern = re.compile(re.escape(self.encoder_level).replace(r"\{level\}", "([0-9]+)") + r"\.")
        levels = [int(match[1]) for key in keys if (match := pattern.match(key))]
        return Layout(
            levels=max(levels, default=-1) + 1,
            encoder_attention=self._has_attention("encoder", keys),
            decoder_attention=self._has_attention("decoder", keys),
            codebook=USUAL if any(key.startswith("quantize.") for key in keys) else None,
            drawn=any(key.startswith(("quantize.proj.", "quantize.embed.")) for key in keys),
            spatial=any(".conv_y." in key for key in keys),
        )

    def _has_attention(self, part: str, keys: Collection[str]) -> bool:
        return any(key.startswith(f"{part}.{self.middle[1]}.") for key in keys)


def _of_norms(parts: Mapping[str, str]) -> dict[str, str]:
    """Layers there -> here, with the parts of each norm in its place."""
    return {
        f"{there}{piece and '.'}{piece}": f"{here}{own and '.'}{own}"
        for there, here in parts.items()
        for piece, own in (SPATIAL.items() if here.startswith("norm") else [("", "")])
    }


COMPVIS = Dialect(
    encoder_level="encoder.down.{level}",
    decoder_level="decoder.up.{~level}",
    block="block.{block}",
    attention="attn.{block}",
    down="downsample.conv",
    up="upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
)
LLAMAGEN = Dialect(
    encoder_level="encoder.conv_blocks.{level}",
    decoder_level="decoder.conv_blocks.{level}",
    block="res.{block}",
    attention="attn.{block}",
    down="downsample.conv",
    up="upsample.conv",
    middle=("mid.0", "mid.1", "mid.2"),
)
DIFFUSERS = Dialect(
    encoder_level="encoder.down_blocks.{level}",
    decoder_level="decoder.up_blocks.{level}",
    block="resnets.{block}",
    attention="attentions.{block}",
    down="downsamplers.0.conv",
    up="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    head=("conv_norm_out", "conv_out"),
    resblock={"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "shortcut"},
    attention_parts={"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"},
    linear=("to_q", "to_k", "to_v", "to_out.0"),
    old_attention_parts={"query": "q", "key": "k", "value": "v", "proj_attn": "out"},
)


def bottleneck_rules(layout: Layout) -> list[Rule]:
    """The rules of a continuous bottleneck, or of one codebook."""
    ours = "bottleneck" if layout.codebook is None else f"bottleneck.branches.{layout.codebook}"
    return [
        *layer("quant_conv", f"{ours}.projection"),
        *layer("post_quant_conv", "decoder.projection"),
        *([] if layout.codebook is None else _quantizer_rules(f"{ours}.quantizer", layout.drawn)),
    ]


def _quantizer_rules(ours: str, drawn: bool) -> list[Rule]:
    """The rows of a table, and of a GumbelQuantize the logits that choose among them."""
    if not drawn:
        return [Rule("quantize.embedding.weight", f"{ours}.weight")]
    return [
        Rule("quantize.embed.weight", f"{ours}.weight"),
        Rule("quantize.proj.weight", f"{ours}.logits.weight", "kernel"),
        Rule("quantize.proj.bias", f"{ours}.logits.bias"),
    ]


def layout_of_ours(keys: Collection[str]) -> Layout:
    """Levels and middles of one of our autoencoders, from the keys of its state dict."""
    levels = [int(match[1]) for key in keys if (match := re.match(r"encoder\.levels\.([0-9]+)\.", key))]
    attention = {part: f"{part}.middle.1.q.weight" in keys for part in ("encoder", "decoder")}
    names = {match[1] for key in keys if (match := re.match(r"bottleneck\.branches\.(\w+)\.", key))}
    return Layout(
        levels=max(levels, default=-1) + 1,
        encoder_attention=attention["encoder"],
        decoder_attention=attention["decoder"],
        codebook=names.pop() if len(names) == 1 else None,
        drawn=any(key.endswith(".quantizer.logits.weight") for key in keys),
        spatial="decoder.head.norm.scale.weight" in keys,
    )
