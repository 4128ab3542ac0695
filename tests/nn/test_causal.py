"""Laws of the causal blocks: order, caches, grouped keys, positions that turn, draws as probabilities say."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.nn.causal import CausalAttention, CausalBlock, DropPath, RMSNorm, SwiGLU, published_hidden
from smalti.nn.freezing import evaluating
from smalti.nn.packed import packed_linears
from smalti.nn.rotary import cells_table, grid_table, rotate
from smalti.nn.sampling import draw, filtered, uniforms

WIDTH, HEADS, LENGTH = 16, 4, 6
CPU = torch.device("cpu")


def block(**options) -> CausalBlock:
    return CausalBlock(WIDTH, HEADS, hidden=24, **options).double().eval()


def sequence(batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, dtype=torch.float64)


def table(length: int = LENGTH) -> torch.Tensor:
    return grid_table((1, length - 1), WIDTH // HEADS, class_position="rotated")


def test_rope_tables_and_rotation_are_the_originals(golden) -> None:
    tensors = golden("fqgan/rope.safetensors")
    for grid, head_width, prefix in ((16, 64, 1), (4, 16, 3)):
        expected = tensors[f"rope_{grid}_hd{head_width}_cls{prefix}"]
        found = grid_table((grid, grid), head_width, prefix)
        torch.testing.assert_close(found.float(), expected, atol=1e-6, rtol=0.0)
    turned = rotate(tensors["x"], grid_table((4, 4), 16, 3)[2:].float())
    assert turned.shape == tensors["x_rot"].shape
    torch.testing.assert_close(
        rotate(tensors["x"], tensors["rope_4_hd16_cls3"][2:]), tensors["x_rot"], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(turned, tensors["x_rot"], atol=1e-6, rtol=0.0)


def test_products_of_turned_vectors_depend_on_the_distance_of_their_cells() -> None:
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def product(first: tuple[int, int], second: tuple[int, int]) -> float:
        turned = (rotate(x, cells_table([cell], 16, prefix=0)) for x, cell in ((q, first), (k, second)))
        one, two = turned
        return float((one * two).sum())

    assert product((1, 2), (4, 3)) == pytest.approx(product((5, 0), (8, 1)))
    assert product((1, 2), (4, 3)) != pytest.approx(product((1, 2), (3, 4)))


@pytest.mark.parametrize("position", ["zeroed", "rotated"])
def test_the_prefix_is_left_alone_or_vanishes(position) -> None:
    x = torch.randn(1, 2, 1, 8)
    turned = rotate(x, grid_table((1, 1), 8, prefix=1, class_position=position).float())
    assert torch.equal(turned[:, 0], x[:, 0] if position == "rotated" else torch.zeros_like(x[:, 0]))
    assert torch.equal(turned[:, 1], x[:, 1])  # the cell (0, 0)


def test_a_head_that_cannot_be_split_into_rows_and_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="6 channels: expected a multiple of 4"):
        grid_table((2, 2), 6)


def test_rms_norm_is_that_of_torch() -> None:
    norm, x = RMSNorm(WIDTH), 3.0 * torch.randn(5, WIDTH)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (WIDTH,), norm.weight, eps=1e-5))
    small = RMSNorm(WIDTH).bfloat16()
    assert torch.equal(small(x.bfloat16()), F.rms_norm(x.bfloat16().float(), (WIDTH,), eps=1e-5).bfloat16())


def test_hidden_widths_are_the_published_ones() -> None:
    assert [published_hidden(width) for width in (768, 1024, 1280, 1536, 3200)] == [2048, 2816, 3584, 4096, 8704]
    assert SwiGLU(8, 4).gate.weight.shape == (4, 8)


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
def test_nothing_depends_on_what_is_later(kv_heads) -> None:
    part, x = block(kv_heads=kv_heads), sequence()
    changed = x.clone()
    changed[:, 3:] += 1.0
    before, after = part(x, table()), part(changed, table())
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("prefix", [1, 4])
def test_with_a_cache_the_same_comes_out_one_position_after_another(kv_heads, prefix) -> None:
    part, x = block(kv_heads=kv_heads), sequence()
    whole = part(x, table())
    cache = part.attention.cache(len(x), LENGTH)
    found = [part(x[:, :prefix], table()[:prefix], None, cache, 0)]
    for place in range(prefix, LENGTH):
        found.append(part(x[:, place : place + 1], table()[place : place + 1], None, cache, place))
    torch.testing.assert_close(torch.cat(found, dim=1), whole)


def test_a_cache_serves_fewer_sequences_than_it_was_made_for() -> None:
    part, x = block(), sequence(4)
    cache = part.attention.cache(4, LENGTH)
    part(x[:, :2], table()[:2], None, cache, 0)
    found = part(x[:2, 2:3], table()[2:3], None, cache, 2)
    torch.testing.assert_close(found, part(x[:2], table())[:, 2:3])


def test_grouped_keys_are_repeated_keys() -> None:
    grouped, full = CausalAttention(WIDTH, HEADS, 2).double(), CausalAttention(WIDTH, HEADS).double()
    q, k, v = grouped.qkv.weight.detach().split([WIDTH, WIDTH // 2, WIDTH // 2])

    def repeated(weight: torch.Tensor) -> torch.Tensor:
        return weight.reshape(2, -1, WIDTH).repeat_interleave(2, dim=0).flatten(0, 1)

    full.qkv.weight.data = torch.cat([q, repeated(k), repeated(v)])
    full.out.weight.data = grouped.out.weight.data
    x = sequence()
    torch.testing.assert_close(grouped(x, table()), full(x, table()))


@pytest.mark.parametrize(("heads", "kv_heads", "name"), [(3, None, "heads=3"), (4, 3, "kv_heads=3")])
def test_heads_that_do_not_divide_are_refused(heads, kv_heads, name) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a divisor"):
        CausalAttention(WIDTH, heads, kv_heads)


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation() -> None:
    part, x = DropPath(0.25), torch.ones(20_000, 1, 1)
    made = part(x)
    assert made.unique().tolist() == pytest.approx([0.0, 1.0 / 0.75])
    assert float(made.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(part.eval()(x), x)


def test_filters_are_the_originals(golden) -> None:
    tensors = golden("fqgan/topk_topp.safetensors")
    cases = [name for name in tensors if name != "logits"]
    assert len(cases) == 5
    for name in cases:
        top_k, top_p = name[1:].split("_p")
        assert torch.equal(filtered(tensors["logits"], int(top_k), float(top_p)), tensors[name])


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    scores = torch.tensor([0.0, math.log(2.0), float("-inf"), math.log(5.0)]).expand(8000, 4)
    numbers = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000  # evenly, so that nothing is left to chance
    counts = draw(scores, numbers).bincount(minlength=4)
    assert counts.tolist() == [1000, 2000, 0, 5000]


def test_the_numbers_of_an_image_do_not_depend_on_the_others() -> None:
    many = uniforms([3, 4, 5], 7, 2, CPU)
    assert torch.equal(many[1:2], uniforms([4], 7, 2, CPU))
    assert torch.equal(uniforms([4], 5, 2, CPU)[0], many[1, :5])
    assert 0.0 <= float(many.min()) <= float(many.max()) < 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_products_and_leave_no_trace(dtype) -> None:
    network = nn.Sequential(nn.Linear(512, 256), nn.Linear(256, 512, bias=False)).to(dtype)
    x = torch.randn(3, 2, 512).to(dtype)
    with torch.no_grad():
        expected = network(x)
        with packed_linears(network, rows=6):
            possible = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not every CPU has bf16
            assert all(("forward" in vars(layer)) == possible for layer in network)
            found = network(x)
    assert not any("forward" in vars(layer) for layer in network)
    torch.testing.assert_close(found, expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0.0)


def test_weights_are_packed_only_where_nobody_asks_for_gradients() -> None:
    layer = nn.Linear(512, 512)
    with packed_linears(layer, rows=1):
        assert "forward" not in vars(layer)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), packed_linears(layer, rows=1):
        assert "forward" not in vars(layer)
    with torch.no_grad(), packed_linears(layer.double(), rows=1):
        assert "forward" not in vars(layer)


def test_modes_come_back_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5).eval())
    with pytest.raises(RuntimeError), evaluating(network):
        raise RuntimeError
    assert [module.training for module in network] == [True, False]
