"""Named codebooks side by side: any number, any grid, who is moved by which term, what each decodes alone."""

import copy

import pytest
import torch
from torch import nn

import smalti
from smalti.bottlenecks._adapter import Adapter, AdapterOptions
from smalti.bottlenecks.tokens import Tokens
from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.cosine import Cosine
from smalti.losses.disentangle import Disentangle
from smalti.losses.entropy import Entropy
from smalti.losses.info_nce import InfoNCE
from smalti.losses.mse import MSE
from smalti.models._heads import FeatureHead, HeadOptions
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.transformer import PositionTable, TransformerBlock
from smalti.objectives import Clock, GeneratorPhase, Term
from smalti.quantizers.nearest import EMA, Revival
from smalti.registry import UserError
from tests.quantized import branch

NAMES = ("visual", "mid", "high", "fourth")
ADAPTER = AdapterOptions(out_channels=6, grid=2, layers=1, heads=2, groups=2)


def options(**changes):
    return branch(**{"size": 8, "channels": 3, "adapter": ADAPTER, **changes})


def model(number=2, heads=("mid",), image_channels=3, conv=None, **changes):
    torch.manual_seed(0)
    backbone = {"channels": 4, "multipliers": (1, 2), "blocks": 1, "groups": 2, "image_channels": image_channels}
    backbone |= conv or {}
    encoder = ConvEncoder(**backbone, out_channels=None)
    codebooks = {name: options(**changes) for name in NAMES[:number]}
    bottleneck = Tokens(in_channels=encoder.out_channels, codebooks=codebooks)
    decoder = ConvDecoder(**backbone, latent_channels=3 * number, z_channels=6)
    made = {name: HeadOptions(codebook=name, width=4, grid=2, layers=2, heads=2) for name in heads}
    return Autoencoder(encoder, bottleneck, decoder, made).double()


def images(batch=2, height=4, width=4, channels=3):
    return torch.rand(batch, channels, height, width, dtype=torch.float64) * 2 - 1


# --- any number, any grid -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 4), (2, 4, 10), (1, 8, 2)])
def test_any_number_of_codebooks_and_any_grid(number, batch, height, width):
    made, x = model(number, heads=[]).eval(), images(batch, height, width)
    code = made.encode(x)
    assert list(code.codebooks) == list(NAMES[:number])
    assert code.indices.shape == (batch, number, height // 2, width // 2)
    assert torch.equal(made.decode_indices(code.indices), made.decode(code.latent))
    assert torch.equal(code.latent, torch.cat([record.latent for record in code.codebooks.values()], dim=1))
    assert made(x).reconstruction.shape == x.shape


def test_one_codebook_without_an_adapter_is_a_convolution_and_its_quantizer():
    made = Tokens(in_channels=5, codebooks={"only": options(adapter=None)}).double()
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    output, branch = made(features), made.branches["only"]
    record = branch.quantizer(branch.projection(features))
    assert torch.equal(output.latent, record.latent)
    assert torch.equal(output.indices, record.indices.unsqueeze(1))
    assert torch.equal(made.mean_latent(), branch.quantizer.mean())
    assert made.codebook_channels == {"only": 3}


def test_codebooks_do_not_share_a_quantizer():
    one = options()
    with pytest.raises(ValueError, match="two names share one quantizer"):
        Tokens(in_channels=4, codebooks={"a": one, "b": one})


def test_codebooks_have_their_own_options():
    made = Tokens(
        in_channels=5,
        codebooks={
            "coarse": options(adapter=None, size=4, normalize=True, ema=EMA(decay=0.9)),
            "fine": options(adapter=None, channels=2, revival=Revival(patience=1)),
        },
    )
    output = made(torch.randn(2, 5, 3, 4))
    assert made.codebook_sizes == {"coarse": 4, "fine": 8}
    assert made.codebook_channels == {"coarse": 3, "fine": 2}
    assert output.latent.shape[1] == made.latent_channels == 5
    torch.testing.assert_close(output.latent[:, :3].norm(dim=1), torch.ones(2, 3, 4))
    before = copy.deepcopy(made.state_dict())
    made.update([output])
    changed = {
        key.rpartition(".")[0] for key, value in made.state_dict().items() if not torch.equal(value, before[key])
    }
    assert {f"branches.{name}.quantizer" for name in ("coarse", "fine")} <= changed
    assert set(made.usage()) == {"coarse", "fine"}


def test_a_saved_tokenizer_keeps_the_order_of_its_codebooks(tmp_path):
    made = model(3, heads=["high", "mid"]).float().eval()
    made.save_pretrained(tmp_path / "model")
    loaded = smalti.load(tmp_path / "model")
    assert list(loaded.codebook_sizes) == list(NAMES[:3])
    x = images().float()
    assert torch.equal(loaded.encode(x).indices, made.encode(x).indices)
    assert torch.equal(loaded(x).heads["high"], made(x).heads["high"])
    assert loaded.output_keys == {"codebooks": NAMES[:3], "heads": ("high", "mid")}


@pytest.mark.parametrize(
    ("codebooks", "message"),
    [({}, "expected at least one"), ({"a.b": options()}, "name 'a.b'"), ({"keys": options()}, "name 'keys'")],
)
def test_impossible_names_are_errors(codebooks, message):
    with pytest.raises(ValueError, match=message):
        Tokens(in_channels=4, codebooks=codebooks)


def test_tokens_of_another_number_of_codebooks_are_an_error():
    made = model(2, heads=[])
    with pytest.raises(ValueError, match=r"expected \(B, 2, h, w\) for the codebooks visual, mid"):
        made.bottleneck.lookup(torch.zeros(1, 3, 2, 2, dtype=torch.int64))


# --- adapters and heads ---------------------------------------------------------------------------------------------


def test_a_grid_that_is_not_square_is_not_transposed():
    """Without positions a transformer does not care for order, so a 2 x 6 grid is a 1 x 12 row, cell by cell."""
    adapter = Adapter(4, AdapterOptions(out_channels=3, grid=4, layers=2, heads=2, groups=2)).double()
    adapter.positions.table.data.zero_()
    adapter.conv.weight.data[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0.0
    features = torch.randn(1, 4, 2, 6, dtype=torch.float64)
    row = adapter(features.reshape(1, 4, 1, 12))
    torch.testing.assert_close(adapter(features), row.reshape(1, 3, 2, 6))


def test_positions_are_interpolated_row_by_row():
    table = PositionTable(4, 2).double()
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table.table.data = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
    assert table(4, 4) is table.table
    fitted = table(8, 6).reshape(8, 6, 2)
    torch.testing.assert_close(fitted[..., 0], fitted[:, :1, 0].expand(8, 6))
    torch.testing.assert_close(fitted[..., 1], fitted[:1, :, 1].expand(8, 6))
    assert (fitted[:, 0, 0].diff() > 0).all()
    assert (fitted[0, :, 1].diff() > 0).all()


def test_a_block_equals_torchs_own_layer():
    block = TransformerBlock(8, 2).double()
    layer = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    names = {
        "self_attn.in_proj_weight": "attention.qkv.weight",
        "self_attn.in_proj_bias": "attention.qkv.bias",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
    }
    state = {}
    for key, value in layer.state_dict().items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)  # noqa: PLW2901
        state[key] = value
    block.load_state_dict(state)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), layer(x))
    torch.testing.assert_close(block(x, queries=2), layer(x)[:, :2])


@pytest.mark.parametrize("layers", [1, 3])
def test_a_head_computes_the_class_token_and_no_other(layers):
    head = FeatureHead(3, HeadOptions(codebook="a", width=8, grid=2, layers=layers, heads=2)).double()
    latent = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    seen = []
    head.blocks[-1].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(head(latent), head.tokens(latent)[:, 0])
    assert seen == [(2, 1, 8), (2, 11, 8)]


@pytest.mark.parametrize("width", [None, 8])
def test_an_adapter_of_another_width_projects_first(width):
    adapter = Adapter(4, AdapterOptions(out_channels=5, grid=2, layers=1, heads=2, groups=2, width=width))
    assert adapter(torch.randn(1, 4, 3, 2)).shape == (1, 5, 3, 2)


def test_a_head_needs_a_codebook_that_exists():
    with pytest.raises(ValueError, match=r"heads\.fourth\.codebook='fourth': no such codebook"):
        model(2, heads=["fourth"])


# --- single codebooks -----------------------------------------------------------------------------------------------


def test_a_codebook_alone_is_the_latent_with_the_others_zero_or_mean():
    made = model(3, heads=[]).eval()
    latent = made.encode(images()).latent
    zeroed = latent.clone()
    zeroed[:, :3] = zeroed[:, 6:] = 0.0
    assert torch.equal(made.decode_only(latent, "mid"), made.decode(zeroed))
    assert torch.equal(made.decode_only(latent, NAMES[:3]), made.decode(latent))
    averaged = latent.clone()
    means = [made.bottleneck.branches[name].quantizer.rows().mean(dim=0) for name in NAMES[:3]]
    averaged[:, :3], averaged[:, 6:] = means[0][:, None, None], means[2][:, None, None]
    torch.testing.assert_close(made.decode_only(latent, ["mid"], others="mean"), made.decode(averaged))
    with pytest.raises(UserError, match="no codebook 'middle'; did you mean 'mid'"):
        made.decode_only(latent, "middle")
    with pytest.raises(UserError, match="others='noise'"):
        made.decode_only(latent, "mid", others="noise")


def test_the_mean_code_counts_how_often_codes_were_chosen():
    made = Tokens(in_channels=1, codebooks={"only": options(adapter=None, size=2, channels=1)})
    branch = made.branches["only"]
    branch.quantizer.replace(torch.tensor([[0.0], [1.0]]))
    nn.init.ones_(branch.projection.weight)
    nn.init.zeros_(branch.projection.bias)
    assert made.mean_latent().tolist() == [0.5]
    made.update([made(torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 4))])
    assert made.mean_latent().tolist() == [0.75]


# --- who is moved by which term -------------------------------------------------------------------------------------


def distance(loss):
    # not a constant: the head's last norm makes a vector of mean 0, at right angles to it
    return lambda output, x: loss(output.heads["mid"], torch.tensor([[1.0, 2.0, -1.0, 0.5]]).expand(len(x), -1))


RECONSTRUCTION = (True, True, False)
# term -> loss of (output, images), and whether decoder, encoder and codebooks move with straight_through
TERMS = {
    "reconstruction": (lambda output, x: MSE()(output.reconstruction, x), RECONSTRUCTION),
    "commitment": (lambda output, x: CommitmentLoss()(output.bottleneck.codebooks), (False, True, False)),
    "codebook": (lambda output, x: CodebookLoss()(output.bottleneck.codebooks), (False, False, True)),
    "entropy": (lambda output, x: Entropy(temperature=1.0)(output.bottleneck.codebooks).total, (False, True, True)),
    "disentangle": (lambda output, x: Disentangle()(output.bottleneck.codebooks).total, (False, True, False)),
    "disentangle codes": (
        lambda output, x: Disentangle(mode="code")(output.bottleneck.codebooks).total,
        (False, True, True),
    ),
    "cosine": (distance(Cosine()), (False, True, False)),
}
THROUGH_THE_LATENT = {"reconstruction", "disentangle", "cosine"}
ESTIMATORS = {
    "straight_through": {},
    "gradient_copy": {"estimator": "gradient_copy"},
    "gradient_copy to codes": {"estimator": "gradient_copy", "codebook_gradient": True},
}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_who_is_moved_by_which_term(term, estimator):
    made, x = model(2, init="normal", **ESTIMATORS[estimator]).train(), images(3)
    loss, (decoder, encoder, codes) = TERMS[term]
    loss(made.training_forward({"image": x}), x).backward()
    codes = codes or (term in THROUGH_THE_LATENT and "to codes" in estimator)

    def moved(part):
        found = [p.grad for name, p in made.named_parameters() if part in name]
        assert found
        return any(gradient is not None and gradient.abs().max() > 1e-12 for gradient in found)

    assert moved("decoder.") is decoder
    assert moved("encoder.") is encoder
    assert moved("adapter.") is encoder
    assert moved(".quantizer.weight") is codes
    assert moved("heads.") is (term == "cosine")


class Teacher(nn.Module):
    """Four numbers of an image."""

    def forward(self, x):
        return (x.flatten(2).mean(dim=2)[:, [0, 1, 2, 0]] + 1.0,)


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("disentangled", [False, True])
def test_distillation_and_disentanglement_are_there_or_absent(distilled, disentangled):
    made = model(3, heads=["mid", "high"] if distilled else [])
    terms = [Term(name="mse", loss=MSE()), Term(name="codebook", loss=CodebookLoss())]
    teachers = {"stub": Teacher()} if distilled else {}
    for name in made.heads:
        inputs = {"student": f"heads.{name}", "teacher": "teacher.stub"}
        terms.append(Term(name=name, loss=InfoNCE(), weight=0.5, inputs=inputs))
    if disentangled:
        terms.append(Term(name="disentangle", loss=Disentangle(), weight=0.1))
    phase = GeneratorPhase(made, terms, teachers=teachers)
    optimizer = torch.optim.SGD(phase.parameters(), lr=1e-2)
    surrogate, report = phase({"image": images(3)}, Clock(0, 0))
    surrogate.backward()
    optimizer.step()
    phase.update([report])
    wanted = {"mse", "codebook"} | ({"mid", "high"} if distilled else set())
    assert set(report.terms) == wanted | ({"disentangle"} if disentangled else set())
    assert all(parameter.grad is not None for parameter in made.heads.parameters())
    with torch.no_grad():
        _, evaluated = phase.eval()({"image": images(1)}, Clock(1, 1))
    assert evaluated.total.isfinite()


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"ema": EMA(decay=0.9)}, {"ema": EMA(), "revival": Revival(patience=1)}])
def test_moving_averages_under_accumulation_equal_the_full_batch(changes):
    whole = model(2, heads=[], **changes).bottleneck
    parts = copy.deepcopy(whole)
    for _ in range(3):
        features = torch.randn(4, 8, 2, 3, dtype=torch.float64)
        whole.update([whole(features)])
        parts.update([parts(piece) for piece in features.split(1)])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("changes", ESTIMATORS.values())
def test_after_a_step_nothing_hangs_on_the_model(changes):
    made = model(2, **changes).train()
    made.training_forward({"image": images()}).reconstruction.square().mean().backward()
    copied = copy.deepcopy(made)
    assert not any(module._forward_hooks or module._backward_hooks for module in made.modules())
    with torch.no_grad():
        x = images()
        assert torch.equal(copied(x).reconstruction, made(x).reconstruction)


def test_gradients_add_up_over_micro_batches():
    made, x = model(2, estimator="gradient_copy", codebook_gradient=True), images(4)
    for pieces in (1, 4):
        twin = copy.deepcopy(made)
        for piece in x.chunk(pieces):
            (MSE()(twin(piece).reconstruction, piece) / pieces).backward()
        gradients = [p.grad.clone() for p in twin.parameters() if p.grad is not None]
        first = gradients if pieces == 1 else first  # noqa: F821
    for one, other in zip(first, gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("conv", "image_channels"),
    [
        ({"norm": "group"}, 3),
        ({"norm": "batch"}, 3),
        ({"norm": "none"}, 3),
        ({"dropout": 0.5}, 3),
        ({"resample": "pool"}, 3),
        ({"resample": "conv"}, 1),
        ({"patch_size": 2}, 4),
        ({}, 5),
    ],
)
def test_every_option_of_the_backbone_trains_a_step(conv, image_channels):
    made = model(2, heads=[], conv=conv, image_channels=image_channels).train()
    x = images(2, 8, 8, image_channels)
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3)
    torch.manual_seed(1)
    before = MSE()(made(x).reconstruction, x)
    before.backward()
    optimizer.step()
    torch.manual_seed(1)
    assert MSE()(made(x).reconstruction, x) != before


def test_bfloat16_autocast_gives_the_same_tokens_for_the_same_latents():
    codebook = model(1, heads=[], normalize=True).float().bottleneck.branches["visual"].quantizer
    z = torch.randn(2, 3, 8, 8)
    expected = codebook(z).indices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codebook(z).indices, expected)
        assert model(2).float()(images().float()).reconstruction.isfinite().all()


def _trained_in_parallel(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    made = model(2, heads=[], ema=EMA(decay=0.9), estimator="gradient_copy")
    wrapped = nn.parallel.DistributedDataParallel(made, broadcast_buffers=False)
    x = torch.load(f"{folder}/images.pt")[2 * rank : 2 * rank + 2]
    output = wrapped(x)
    (MSE()(output.reconstruction, x) + CommitmentLoss()(output.bottleneck.codebooks)).backward()
    made.update([output])
    gradients = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    torch.save({"gradients": gradients, "state": made.state_dict()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # tests/contracts/test_quantizers.py and tests/engine have two processes in the fast suite
def test_two_processes_equal_one(tmp_path):
    x = images(4)
    torch.save(x, tmp_path / "images.pt")
    torch.multiprocessing.spawn(_trained_in_parallel, (str(tmp_path),), nprocs=2)
    made = model(2, heads=[], ema=EMA(decay=0.9), estimator="gradient_copy")
    output = made(x)
    (MSE()(output.reconstruction, x) + CommitmentLoss()(output.bottleneck.codebooks)).backward()
    made.update([output])
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, p in made.named_parameters():
            if p.grad is not None:
                torch.testing.assert_close(found["gradients"][name], p.grad, rtol=1e-9, atol=1e-12)
        for name, value in made.state_dict().items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-9, atol=1e-12)
