"""LPIPS in AlexNet: a number of the authors' package, and what is said of its options."""

from pathlib import Path

import pytest
import torch

from smalti.extractors._alex import ALEX_WIDTHS
from smalti.extractors._weights import pretrained_heads
from smalti.extractors.lpips import LPIPS
from smalti.losses.lpips import lpips
from smalti.metrics import Observation
from smalti.metrics import lpips as metrics
from smalti.outputs import BottleneckOutput

KERNELS = {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}


def test_is_the_number_of_the_authors_package(tmp_path: Path) -> None:
    """Recorded from lpips 0.1.4 with ``net='alex'``, its own linear weights and this trunk."""
    random, trunk = torch.Generator().manual_seed(1), {}
    for index, (before, width, kernel) in KERNELS.items():
        weight = torch.randn(width, before, kernel, kernel, generator=random)
        trunk[f"features.{index}.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        trunk[f"features.{index}.bias"] = torch.randn(width, generator=random) * 0.1
    torch.save(trunk, tmp_path / "trunk.pth")
    extractor = LPIPS(network="alex", weights=[str(tmp_path / "trunk.pth"), str(pretrained_heads("alex"))])
    random = torch.Generator().manual_seed(3)
    target = torch.rand(2, 3, 64, 64, generator=random) * 2 - 1
    made = (target + 0.3 * torch.randn(target.shape, generator=random)).clamp(-1, 1)
    found = lpips(made, target, extractor=extractor, reduction="none").flatten()
    torch.testing.assert_close(found, torch.tensor([0.02320331707596779, 0.02413526177406311]), rtol=1e-5, atol=0)
    assert extractor.name == "lpips-alexnet (trunk.pth, alex.pth)"
    seen = Observation(target=target, reconstruction=made, bottleneck=BottleneckOutput(latent=made), codebook_sizes={})
    values = metrics.LPIPS(extractor).per_image(seen)
    assert list(values) == ["lpips_alex"]
    torch.testing.assert_close(values["lpips_alex"], found)


def test_says_what_it_takes() -> None:
    with torch.device("meta"):
        network = LPIPS(network="alex")
        assert [feature.shape[1] for feature in network(torch.empty(1, 3, 31, 31))] == list(ALEX_WIDTHS)
        with pytest.raises(ValueError, match="AlexNet needs at least 31 x 31"):
            network(torch.empty(1, 3, 30, 64))
        assert "at least 31 x 31" in str(network.objection((3, 30, 64)))
        assert network.objection((1, 31, 31)) is None
        with pytest.raises(ValueError, match=r"widths=\[64, 128, 256, 512, 512\]: expected \[64, 192, 384, 256, 256\]"):
            LPIPS(network="alex", widths=(64, 128, 256, 512, 512))
        with pytest.raises(ValueError, match=r"widths=.*: expected 5 numbers >= 1"):
            LPIPS(network="alex", weights="random", widths=(4, 4))
        with pytest.raises(ValueError, match="network='squeeze': expected 'vgg' or 'alex'"):
            LPIPS(network="squeeze")  # type: ignore[arg-type]
    assert metrics.LPIPS(LPIPS(network="alex", weights="random", widths=(4, 4, 8, 8, 8))).names == ("lpips_random",)
