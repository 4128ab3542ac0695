"""Whole objectives of latent-diffusion and taming: both passes, before and after the adversary starts."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smalti.discriminators.patch import Patch
from smalti.extractors import lpips as features
from smalti.interop._codebooks import USUAL
from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.kl import KL
from smalti.losses.l1 import L1
from smalti.losses.lpips import LPIPS
from smalti.losses.scaled_nll import Distance, ScaledNLL
from smalti.objectives import Adaptive, Clock, DiscriminatorPhase, GeneratorPhase, LossReport, Term
from tests.conftest import GOLDEN
from tests.golden_keys import compvis_key, kl_tiny, vq_tiny

REL = 1e-9
WIDTHS = (8, 8, 12, 12, 16)
START = 10
STORED = ("kl_loss_cond_vanilla_actnorm_state", "ldm_vqloss_l2_state")


def perceptual(state: Mapping[str, Tensor], folder: Path) -> LPIPS:
    """The stand-in network of the goldens, per sample."""
    prefix = "loss.perceptual_loss."
    path = folder / "lpips.safetensors"
    save_file({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, path)
    return LPIPS(extractor=features.LPIPS(weights=str(path), widths=WIDTHS), reduction="none")


def patch(state: Mapping[str, Tensor], channels: int, layers: int) -> Patch:
    prefix = "loss.discriminator."
    network = Patch(channels=channels, layers=layers)
    network.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    return network.double()


def nll(distances: Mapping[str, Distance], log_scale: float = 0.0, reduction: str = "batch_sum") -> ScaledNLL:
    """The originals' likelihood; its scale is a parameter, as theirs is, though no optimizer of theirs holds it."""
    return ScaledNLL(
        distances=distances, likelihood="latent-diffusion", scale="learned", log_scale=log_scale, reduction=reduction
    )


@dataclass
class Game:
    """Both phases of one case, and what is seen at the reconstruction."""

    generator: GeneratorPhase
    discriminator: DiscriminatorPhase
    batch: dict[str, Tensor]

    def play(self, step: int) -> tuple[LossReport, Tensor]:
        """The autoencoder's pass with backward: its report, and the gradient at the reconstruction."""
        seen: list[Tensor] = []
        hook = self.generator.network.decoder.register_forward_hook(lambda module, args, output: seen.append(output))
        surrogate, report = self.generator(self.batch, Clock(step, step), measure=True)
        hook.remove()
        (gradient,) = torch.autograd.grad(surrogate, seen[0], retain_graph=True)
        surrogate.backward()
        return report, gradient

    def left_by_the_balance(self, images: Tensor) -> Tensor:
        """grad nll + grad g at the reconstruction, nll without sample weights.

        The goldens' ``grad_recon`` was collected with ``retain_grad``, which also added up what the two
        ``autograd.grad`` calls of the adaptive weight sent through the reconstruction; this much is too much there.
        """
        images = images.detach().requires_grad_(True)
        nll = self.generator.losses["nll"](images, self.batch["image"]).total
        adversarial = -copy.deepcopy(self.discriminator.network)(images).logits.mean()
        (gradient,) = torch.autograd.grad(nll + adversarial, images)
        return gradient


def game(model: nn.Module, critic: Patch, terms: list[Term], batch: dict[str, Tensor], start: int = START) -> Game:
    generator = GeneratorPhase(model, terms, discriminator=critic).double()
    terms_d = [Term(name="gan", loss=HingeDiscriminator(), weight=0.5, start=start)]  # the originals' 1/2
    return Game(generator, DiscriminatorPhase(critic, terms_d, model=model), batch)


@pytest.fixture
def kl_game(golden: Callable[[str], Any], tmp_path: Path) -> Callable[..., Game]:
    state, io = golden("ldm/kl_tiny_state.safetensors"), golden("ldm/kl_tiny_io.safetensors")

    def make(log_scale: float = 0.0, weights: Tensor | None = None) -> Game:
        distances = {"l1": Distance(L1(reduction="none")), "lpips": Distance(perceptual(state, tmp_path))}
        inputs = {} if weights is None else {"weight": "batch.weights"}
        terms = [
            Term(name="nll", loss=nll(distances, log_scale), inputs=inputs),
            Term(name="kl", loss=KL(reduction="batch_sum"), weight=1e-6),
            Term(name="gan", loss=HingeGenerator(), weight=0.5, start=START, adaptive=Adaptive(reference=["nll"])),
        ]
        batch = {"image": io["image"], "noise": io["noise"]}
        if weights is not None:
            batch["weights"] = weights
        play = game(kl_tiny(state), patch(state, 64, 2), terms, batch)
        torch.nn.init.constant_(play.generator.losses["nll"].log_scale, log_scale)  # 0.7 in float64
        return play

    return make


@pytest.fixture
def scalars(golden: Callable[[str], Any]) -> dict[str, Any]:
    return golden("ldm/scalars.json")


def near(value: Any) -> Any:
    return pytest.approx(value, rel=REL, abs=1e-12)


def assert_norms(network: nn.Module, expected: Mapping[str, float], levels: int = 2) -> None:
    """Gradient norm of every parameter; biases before a normalisation have none but rounding."""
    ours = {name: p.grad for name, p in network.named_parameters()}
    codebook = USUAL if "quantize.embedding.weight" in expected else None
    renamed = {compvis_key(name, levels, codebook): value for name, value in expected.items()}
    assert renamed.keys() == ours.keys()
    largest = max(renamed.values())
    for name, value in renamed.items():
        gradient = ours[name]
        assert gradient is not None, name
        assert gradient.norm().item() == pytest.approx(value, rel=1e-8, abs=1e-12 * largest), name


def assert_buffers(critic: nn.Module, expected: Mapping[str, Any]) -> None:
    state = critic.state_dict()
    for name, value in expected.items():
        found = state[name].flatten()[:4].tolist()
        assert found == near(value if isinstance(value, list) else [value]), name


KL_CASES = [
    ("kl_pre_disc", 9, 0.0, None),
    ("kl_post_disc", 10, 0.0, None),
    ("kl_post_disc_logvar0.7", 10, 0.7, None),
    ("kl_post_disc_weights", 10, 0.0, [0.25, 2.0]),
]


@pytest.mark.parametrize(("case", "step", "log_scale", "weights"), KL_CASES)
def test_kl_objective_in_the_autoencoders_pass(
    case: str,
    step: int,
    log_scale: float,
    weights: list[float] | None,
    kl_game: Callable[..., Game],
    scalars: dict[str, Any],
    golden: Callable[[str], Any],
) -> None:
    map_ = None if weights is None else torch.tensor(weights, dtype=torch.float64).view(2, 1, 1, 1)
    play = kl_game(log_scale, map_)
    report, at_images = play.play(step)
    expected, log = scalars[case]["opt0"], scalars[case]["opt0"]["log"]
    terms = report.terms
    assert report.total.item() == near(expected["loss"]) == near(log["train/total_loss"])
    assert terms["nll"].parts["nll"].item() == near(log["train/nll_loss"])  # without sample weights, in both
    assert terms["nll"].parts["rec"].item() == near(log["train/rec_loss"])
    assert terms["nll"].parts["log_scale"].item() == near(log["train/logvar"])
    assert terms["kl"].raw.item() == near(log["train/kl_loss"])
    assert_norms(play.generator.network, expected["grad_norms_ae"])
    tensors = golden("ldm/kl_loss_tensors.safetensors")
    recorded = tensors[f"{case}.opt0.grad_recon"] - play.left_by_the_balance(report.fake)
    torch.testing.assert_close(at_images, recorded, rtol=1e-5, atol=1e-5)
    last = play.generator.model.last_layer.grad
    torch.testing.assert_close(last, tensors[f"{case}.opt0.grad_last_layer"], rtol=1e-8, atol=1e-8)
    scale = dict(play.generator.named_parameters())["losses.nll.log_scale"]
    assert scale.grad.item() == near(expected["logvar_grad"])  # ours goes to an optimizer; theirs accumulates for ever
    critic = play.discriminator.network
    assert all(
        p.grad is None for p in critic.parameters()
    )  # the originals leak theirs into the critic: grad_norms_disc
    assert max(expected["grad_norms_disc"].values()) > 0 or log["train/disc_factor"] == 0
    if step < START:
        # The original computes the critic and the adaptive weight for nothing, and moves the critic's statistics.
        assert log["train/d_weight"] > 0
        assert terms["gan"].status == "waiting"
        assert "gan/adaptive" not in report.measures
        assert all(module.num_batches_tracked == 0 for module in critic.modules() if isinstance(module, nn.BatchNorm2d))
        assert expected["disc_buffers"]["main.3.num_batches_tracked"] == 1
    else:
        assert float(terms["gan"].weight) == near(log["train/d_weight"])
        assert terms["gan"].raw.item() == near(log["train/g_loss"])
        assert_buffers(critic, expected["disc_buffers"])


@pytest.mark.parametrize(("case", "step", "log_scale", "weights"), KL_CASES)
def test_kl_objective_in_the_discriminators_pass(
    case: str,
    step: int,
    log_scale: float,
    weights: list[float] | None,
    kl_game: Callable[..., Game],
    scalars: dict[str, Any],
) -> None:
    play = kl_game(log_scale, None if weights is None else torch.ones(2, 1, 1, 1, dtype=torch.float64))
    report, _ = play.play(step)
    expected, log = scalars[case]["opt1"], scalars[case]["opt1"]["log"]
    clock = Clock(step, step)
    if step < START:
        # Theirs runs and multiplies by 0: gradients of exact zeros. Ours is skipped.
        assert expected["loss"] == 0.0
        assert not play.discriminator.is_active(clock)
        return
    play.generator.zero_grad()
    loss, found = play.discriminator(play.batch, clock, fake=report.fake)
    loss.backward()
    assert found.total.item() == near(expected["loss"]) == near(log["train/disc_loss"])
    assert found.measures["logits_real"].item() == near(log["train/logits_real"])
    assert found.measures["logits_fake"].item() == near(log["train/logits_fake"])
    norms = expected["grad_norms_disc"]
    critic = play.discriminator.network
    for name, parameter in critic.named_parameters():
        assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-8, abs=1e-12), name
    assert_buffers(critic, expected["disc_buffers"])
    assert set(expected["grad_norms_ae"].values()) == {None}
    assert all(not p.grad.any() for p in play.generator.parameters() if p.grad is not None)


def test_running_the_model_again_gives_the_discriminator_the_same_pass(kl_game: Callable[..., Game]) -> None:
    play = kl_game()
    with torch.no_grad():
        play.discriminator.eval()
        fake = play.generator.model.training_forward(play.batch).reconstruction
        reused = play.discriminator(play.batch, Clock(START, 0), fake=fake)[1].total
        refreshed = play.discriminator(play.batch, Clock(START, 0))[1].total
    assert torch.equal(reused, refreshed)


def test_kl_evaluation_without_gradient_says_what_it_leaves_out(
    kl_game: Callable[..., Game], scalars: dict[str, Any]
) -> None:
    play, expected = kl_game(), scalars["kl_eval_nograd"]["opt0"]
    play.generator.eval()
    with torch.no_grad():
        value, report = play.generator(play.batch, Clock(START, START))
    log, terms = expected["log"], report.terms
    assert report.total.item() == near(expected["loss"])  # both leave the adversary out ...
    assert value.item() == near(expected["loss"])
    assert terms["gan"].raw.item() == near(log["val/g_loss"])
    assert terms["nll"].parts["nll"].item() == near(log["val/nll_loss"])
    assert terms["kl"].raw.item() == near(log["val/kl_loss"])
    assert log["val/d_weight"] == 0.0  # ... theirs by a silent 0,
    assert (terms["gan"].status, terms["gan"].weight, terms["gan"].weighted) == ("not computed", None, None)
    assert_buffers(play.discriminator.network, expected["disc_buffers"])
    play.discriminator.eval()
    with torch.no_grad():
        judged = play.discriminator(play.batch, Clock(START, START), fake=report.fake)[1]
    assert judged.total.item() == near(scalars["kl_eval_nograd"]["opt1"]["loss"])


def test_kl_evaluation_with_gradient_has_the_adaptive_weight(
    kl_game: Callable[..., Game], scalars: dict[str, Any]
) -> None:
    play, expected = kl_game(), scalars["kl_eval_withgrad"]["opt0"]
    play.generator.eval()
    report, _ = play.play(START)
    assert report.total.item() == near(expected["loss"])
    assert float(report.terms["gan"].weight) == near(expected["log"]["val/d_weight"])
    assert_norms(play.generator.network, expected["grad_norms_ae"])
    assert_buffers(play.discriminator.network, expected["disc_buffers"])


def test_kl_objective_without_perceptual_and_adversarial_terms(
    golden: Callable[[str], Any], scalars: dict[str, Any]
) -> None:
    state, io = golden("ldm/kl_tiny_state.safetensors"), golden("ldm/kl_tiny_io.safetensors")
    expected = scalars["kl_no_perceptual_discfactor0"]["opt0"]
    terms = [
        Term(name="nll", loss=nll({"l1": Distance(L1(reduction="none"))})),
        Term(name="kl", loss=KL(reduction="batch_sum")),
    ]
    batch = {"image": io["image"], "noise": io["noise"]}
    play = game(kl_tiny(state), patch(state, 64, 2), terms, batch)
    report, _ = play.play(START)
    assert report.total.item() == near(expected["loss"])
    assert report.terms["nll"].parts["rec"].item() == near(expected["log"]["train/rec_loss"])
    assert_norms(play.generator.network, expected["grad_norms_ae"])


@pytest.fixture
def vq_game(golden: Callable[[str], Any], tmp_path: Path) -> Game:
    state, io = golden("ldm/vq_tiny_state.safetensors"), golden("ldm/vq_tiny_io.safetensors")
    distances = {"l1": Distance(L1(reduction="none")), "lpips": Distance(perceptual(state, tmp_path))}
    terms = [
        Term(name="nll", loss=nll(distances, reduction="mean")),
        # taming's default has its 0.25 on the wrong term: weight 1 on the commitment, 0.25 on the codebook
        Term(name="commitment", loss=CommitmentLoss(), weight=1.0),
        Term(name="codebook", loss=CodebookLoss(), weight=0.25),
        Term(name="gan", loss=HingeGenerator(), weight=0.75, start=START, adaptive=Adaptive(reference=["nll"])),
    ]
    return game(vq_tiny(state), patch(state, 16, 3), terms, {"image": io["image"]})


@pytest.mark.parametrize(("case", "step"), [("vq_pre_disc", 9), ("vq_post_disc", 10)])
def test_vq_objective_in_both_passes(
    case: str, step: int, vq_game: Game, scalars: dict[str, Any], golden: Callable[[str], Any]
) -> None:
    report, at_images = vq_game.play(step)
    expected, log, terms = scalars[case]["opt0"], scalars[case]["opt0"]["log"], report.terms
    assert report.total.item() == near(expected["loss"])
    assert terms["nll"].raw.item() == near(log["train/nll_loss"])
    assert terms["nll"].parts["lpips"].item() == near(log["train/p_loss"])
    quant = terms["commitment"].weighted + terms["codebook"].weighted
    assert quant.item() == near(log["train/quant_loss"])
    assert_norms(vq_game.generator.network, expected["grad_norms_ae"])
    io = golden("ldm/vq_tiny_io.safetensors")
    recorded = io[f"{case}.grad_recon"] - vq_game.left_by_the_balance(report.fake)
    torch.testing.assert_close(at_images, recorded, rtol=1e-5, atol=1e-8)
    codes = vq_game.generator.network.bottleneck.branches.codebook.quantizer.weight.grad
    torch.testing.assert_close(codes, io[f"{case}.grad_codebook"], rtol=1e-8, atol=1e-12)
    critic = vq_game.discriminator.network
    if step < START:
        assert terms["gan"].status == "waiting"
        assert not vq_game.discriminator.is_active(Clock(step, step))
        return
    assert float(terms["gan"].weight) == near(log["train/d_weight"])
    assert terms["gan"].raw.item() == near(log["train/g_loss"])
    loss, found = vq_game.discriminator(vq_game.batch, Clock(step, step), fake=report.fake)
    loss.backward()
    second = scalars[case]["opt1"]
    assert found.total.item() == near(second["loss"])
    assert found.measures["logits_real"].item() == near(second["log"]["train/logits_real"])
    assert found.measures["logits_fake"].item() == near(second["log"]["train/logits_fake"])
    for name, parameter in critic.named_parameters():
        assert parameter.grad.norm().item() == pytest.approx(second["grad_norms_disc"][name], rel=1e-8, abs=1e-12)


def test_vq_evaluation_without_gradient(vq_game: Game, scalars: dict[str, Any]) -> None:
    vq_game.generator.eval()
    with torch.no_grad():
        report = vq_game.generator(vq_game.batch, Clock(START, START))[1]
    expected = scalars["vq_eval_nograd"]["opt0"]
    assert report.total.item() == near(expected["loss"])
    assert report.terms["gan"].raw.item() == near(expected["log"]["val/g_loss"])
    assert report.terms["gan"].status == "not computed"


@pytest.mark.parametrize("name", STORED)
def test_cases_whose_weights_are_not_at_hand(name: str) -> None:
    """kl_cond_vanilla_actnorm and ldm_vq_l2_post_disc used a critic and an LPIPS of their own."""
    if not (GOLDEN / f"ldm/{name}.safetensors").exists():
        pytest.skip(f"{name} is not among the golden files: without it the case has no critic and no LPIPS")
    pytest.fail(f"{name} is at hand now: test its case")
