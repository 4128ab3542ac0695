"""The originals' numbers: cases of a golden file as calls of ours, and the tiny networks that they were made with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.outputs import DiscriminatorOutput

Tensors = Mapping[str, Tensor]
EXACT = {"rtol": 1e-5, "atol": 1e-7}
# Gradients that the originals recorded in float32 with an error above EXACT: up to 1.2 epsilons of the largest element.
ROUNDED = {
    ("GradientPenaltyLossComps.w10.HWC", "c1.weight"),
    ("ptgan.wgan_div", "c1.weight"),
    ("lp.interp.8x", "c1.weight"),
}


@dataclass(frozen=True)
class Case:
    """A call whose value and gradients the original's equal.

    Args:
        loss: takes the tensors of ``leaves`` in their order, returns a scalar.
        leaves: name in the golden file -> name of the input, or how to make it from the file's tensors.
        plus: a case whose value ours contains too.
    """

    loss: Callable[..., Tensor]
    leaves: Mapping[str, str | Callable[[Tensors], Tensor]] = field(default_factory=dict)
    plus: str | None = None

    def check(self, name: str, tensors: Tensors) -> None:
        """Compares value and all gradients in the file; of an unreduced output, those of its sum."""
        leaves = {
            key: (tensors[f"input/{source}"] if isinstance(source, str) else source(tensors)).clone().requires_grad_()
            for key, source in self.leaves.items()
        }
        value = self.loss(*leaves.values())
        expected = tensors[f"case/{name}/out"].sum()
        if self.plus is not None:
            expected = expected + tensors[f"case/{self.plus}/out"]
        torch.testing.assert_close(value, expected, **EXACT)
        wanted = {key.rpartition("/")[2] for key in tensors if key.startswith(f"case/{name}/grad/")}
        assert wanted <= set(leaves), "a gradient that is not compared"
        gradients = torch.autograd.grad(value, [leaves[key] for key in wanted], materialize_grads=True)
        for key, gradient in zip(wanted, gradients, strict=True):
            torch.testing.assert_close(gradient, tensors[f"case/{name}/grad/{key}"], **EXACT)


class TinyCritic(nn.Module):
    """The critic of gradient_penalty and advloss: images (B, 3, 8, 8) -> one logit each, or one for each of 2 x 2."""

    def __init__(self, tensors: Tensors, kind: str) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 4, 3, 2, 1)
        self.fc, self.po = nn.Linear(16, 1), nn.Conv2d(4, 1, 1)
        self.kind = kind
        self.load_state_dict({key.removeprefix("disc/"): t for key, t in tensors.items() if key.startswith("disc/")})

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        x = F.softplus(self.c2(F.leaky_relu(self.c1(images), 0.2)))
        return DiscriminatorOutput(logits=self.fc(x.flatten(1)) if self.kind == "scalar" else self.po(x))

    def check_gradients(self, loss: Tensor, name: str, tensors: Tensors) -> None:
        """Compares the gradients of ``loss`` at all weights with those in the file."""
        names, weights = zip(*self.named_parameters(), strict=True)
        for key, gradient in zip(names, torch.autograd.grad(loss, weights, materialize_grads=True), strict=True):
            expected = tensors[f"case/{name}/grad/disc.{key}"]
            rounding = 2.0 * torch.finfo(torch.float32).eps * expected.abs().max().item()
            atol = max(EXACT["atol"], rounding) if (name, key) in ROUNDED else EXACT["atol"]
            torch.testing.assert_close(gradient, expected, rtol=EXACT["rtol"], atol=atol)
