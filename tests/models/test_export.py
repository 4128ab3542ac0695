"""Programs of ``torch.export``: of any batch and size, equal to the model, and kept in a file."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.utils import _pytree as pytree

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks._adapter import AdapterOptions
from smalti.bottlenecks.gaussian import Gaussian
from smalti.bottlenecks.identity import Identity
from smalti.bottlenecks.tokens import Tokens
from smalti.discriminators.patch import Patch
from smalti.models._heads import HeadOptions
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.models.mlp_generator import MLPGenerator
from smalti.nn.exporting import register_container
from smalti.outputs import CODE_TERMS, AutoencoderOutput, CodebookRecord, DiagonalGaussian, DiscriminatorOutput
from tests.quantized import branch, one_codebook

ADAPTER = AdapterOptions(out_channels=4, grid=4, layers=1, heads=2, width=4, groups=2)


def several() -> Tokens:
    return Tokens(
        in_channels=16, codebooks={"look": branch(8, 2, normalize=True, adapter=ADAPTER), "sense": branch(5, 2)}
    )


BOTTLENECKS: Mapping[str, Any] = {
    "identity": lambda: Identity(in_channels=16, latent_channels=4),
    "gaussian": lambda: Gaussian(in_channels=16, latent_channels=4),
    "codebook": lambda: one_codebook(16, 300, 4),
    "codebooks and a head": several,
}


def autoencoder(kind: str) -> Autoencoder:
    torch.manual_seed(0)
    sizes = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
    bottleneck: Bottleneck = BOTTLENECKS[kind]()
    heads = {"sense": HeadOptions(codebook="sense", width=4, grid=4, layers=1, heads=2)} if "head" in kind else {}
    encoder, decoder = ConvEncoder(**sizes, out_channels=None), ConvDecoder(**sizes, latent_channels=4)
    return Autoencoder(encoder, bottleneck, decoder, heads).eval()


def equal(one: Any, other: Any) -> bool:
    first, second = pytree.tree_flatten(one), pytree.tree_flatten(other)
    return first[1] == second[1] and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(first[0], second[0], strict=True)
    )


# The others export the same networks around less.
@pytest.mark.parametrize(
    "kind", [kind if kind == "gaussian" else pytest.param(kind, marks=pytest.mark.slow) for kind in BOTTLENECKS]
)
def test_a_program_of_any_batch_and_size_equals_the_model(kind: str) -> None:
    made = autoencoder(kind)
    sides = {0: Dim("batch"), 2: 2 * Dim("h", min=2, max=512), 3: 2 * Dim("w", min=2, max=512)}
    program = export(made, (torch.rand(2, 3, 8, 12) * 2 - 1,), dynamic_shapes={"images": sides})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for shape in ((2, 3, 8, 12), (1, 3, 16, 10), (3, 3, 6, 30)):
        images = torch.rand(shape) * 2 - 1
        with torch.no_grad():
            output = loaded(images)
            assert isinstance(output, AutoencoderOutput)
            assert equal(output, made(images))


class Call(nn.Module):
    """One method of a model, to be exported by itself."""

    def __init__(self, model: Autoencoder, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, given: Tensor) -> Any:
        return getattr(self.model, self.name)(given)


@torch.no_grad()
def test_encoder_and_decoder_are_programs_of_their_own() -> None:
    made, images = autoencoder("codebook"), torch.rand(2, 3, 8, 12) * 2 - 1
    code = made.encode(images)
    batch = {"given": {0: Dim("batch")}}
    assert equal(export(Call(made, "encode"), (images,), dynamic_shapes=batch).module()(images), code)
    decoder = export(Call(made, "decode"), (code.latent,), dynamic_shapes=batch).module()
    assert torch.equal(decoder(code.latent), made.decode(code.latent))


@torch.no_grad()
def test_generators_and_discriminators_are_exported_too() -> None:
    generator = MLPGenerator(image_size=8, image_channels=1, latent_size=4, widths=(8,)).eval()
    latents = torch.randn(2, 4)
    assert equal(export(generator, (latents,)).module()(latents), generator(latents))
    critic, images = Patch(channels=4, layers=1).eval(), torch.rand(1, 3, 16, 16)
    found = export(critic, (images,)).module()(images)
    assert isinstance(found, DiscriminatorOutput)
    assert equal(found, critic(images))


def test_every_tensor_of_an_output_is_reached_and_its_facts_are_kept() -> None:
    output = autoencoder("codebooks and a head")(torch.zeros(1, 3, 8, 8))
    doubled = pytree.tree_map_only(Tensor, lambda value: value.double() if value.is_floating_point() else value, output)
    assert doubled.reconstruction.dtype == doubled.heads["sense"].dtype == torch.float64
    record = doubled.bottleneck.codebooks["look"]
    assert record.latent.dtype == record.codebook.dtype == torch.float64
    assert record.terms == CODE_TERMS
    spec = pytree.tree_structure(output)
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec


def test_records_that_fit_other_terms_are_of_another_structure() -> None:
    tensor = torch.zeros(1, 1, 1, 1)
    one, other = (
        CodebookRecord(z=tensor, quantized=tensor, latent=tensor, indices=tensor, terms=frozenset(terms))
        for terms in (["entropy"], ["commitment"])
    )
    assert pytree.tree_structure(one) != pytree.tree_structure(other)


def test_an_output_of_ones_own_is_registered_the_same_way() -> None:
    @register_container
    @dataclass(frozen=True)
    class Mine:
        images: Tensor
        posterior: DiagonalGaussian

    mine = Mine(torch.ones(1), DiagonalGaussian(torch.ones(1), torch.ones(1)))
    total = sum(pytree.tree_leaves(mine))
    assert float(total) == 3.0
