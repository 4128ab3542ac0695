"""Frozen weights: buffers that are in no state dict and no parameter count, and how files fill them."""

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from smalti.extractors._download import PinnedFile, fetch, sha256_of
from smalti.registry import UserError

VGG16_FILE = PinnedFile(
    name="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    megabytes=528,
)
VGG19_FILE = PinnedFile(
    name="vgg19-dcbb9e9d.pth",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9d",  # as many digits as torchvision publishes
    megabytes=548,
)
ALEXNET_FILE = PinnedFile(
    name="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",  # as many digits as torchvision publishes
    megabytes=233,
)
# The linear weights of version 0.1; torchmetrics has the same files.
LPIPS_HEADS_FILES = {
    "vgg": PinnedFile(
        name="lpips-vgg.pth",
        url="https://heibox.uni-heidelberg.de/f/607503859c864bc1b30b/?dl=1",
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        megabytes=1,
    ),
    "alex": PinnedFile(
        name="lpips-alex.pth",
        url="https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        megabytes=1,
    ),
}

_TAMING_TRUNK = re.compile(r"net\.slice\d+\.(\d+)\.(weight|bias)")
_HEAD = re.compile(r"lin\d+\.model\.1\.weight")


def paths_of(weights: str | Sequence[str]) -> tuple[Path, ...]:
    """The files that an option ``weights`` names; none for ``pretrained`` and ``random``.

    Raises:
        ValueError: if it names a file that does not exist.
    """
    if weights in ("pretrained", "random"):  # a list is not hashable
        return ()
    paths = tuple(Path(path).expanduser() for path in ([weights] if isinstance(weights, str) else weights))
    if not paths:
        raise ValueError("weights=[]: expected 'pretrained', 'random', a path, or a list of paths")
    for path in paths:
        if not path.is_file():
            raise ValueError(f"weights={str(path)!r}: no such file; expected 'pretrained', 'random' or a path")
    return paths


def label_of(weights: str | Sequence[str]) -> str:
    """What follows a network's name where numbers are reported: nothing for pretrained weights, else their origin."""
    if weights == "pretrained":
        return ""
    if weights == "random":
        return " (random weights)"
    return f" ({', '.join(path.name for path in paths_of(weights))})"


def pretrained_heads(network: str = "vgg") -> Path:
    """The file of LPIPS's linear weights for ``vgg`` or ``alex``: from the installed torchmetrics, else downloaded."""
    file = LPIPS_HEADS_FILES[network]
    spec = importlib.util.find_spec("torchmetrics")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"
        if path.is_file() and sha256_of(path) == file.sha256:
            return path
    return fetch(file, "weights")


def pretrained_alexnet() -> Path:
    """The file of torchvision's AlexNet weights, trained on ImageNet."""
    return fetch(ALEXNET_FILE, "weights")


def pretrained_vgg16() -> Path:
    """The file of torchvision's VGG16 weights, trained on ImageNet."""
    return fetch(VGG16_FILE, "weights")


def pretrained_vgg19() -> Path:
    """The file of torchvision's VGG19 weights, trained on ImageNet."""
    return fetch(VGG19_FILE, "weights")


def read_tensors(paths: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of the files (safetensors, or torch files without code), under torchvision's key names.

    Raises:
        UserError: if a file is damaged or holds anything but tensors.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        for key, value in _read(path).items():
            tensors[_TAMING_TRUNK.sub(r"features.\1.\2", key)] = value
    return tensors


def is_head(key: str) -> bool:
    """Whether ``key`` is a linear weight of LPIPS, ``lin{k}.model.1.weight``."""
    return _HEAD.fullmatch(key) is not None


def fill(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    """Copies ``given`` into the tensors of ``expected``, name by name, in place.

    Args:
        expected: name -> tensor to fill; every one must be given.
        given: name -> tensor; every one must be expected.
        source: where they come from, for the message.

    Raises:
        UserError: listing all missing, unexpected and wrongly shaped tensors at once.
    """
    problems = [f"missing {key} {tuple(expected[key].shape)}" for key in expected if key not in given]
    problems += [f"unexpected {key} {tuple(given[key].shape)}" for key in given if key not in expected]
    problems += [
        f"{key} has shape {tuple(given[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    ]
    if problems:
        raise UserError(f"weights from {source} do not fit:\n  " + "\n  ".join(problems))
    with torch.no_grad():
        for key, tensor in expected.items():
            tensor.copy_(given[key])


def random_tensors(expected: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random stand-ins for trained weights, always the same: He-normal convolutions, biases 0, positive heads.

    Of a normalisation weight and variance are 1 and the mean is 0.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for key, tensor in expected.items():
        shape = tuple(tensor.shape)
        if is_head(key):
            tensors[key] = 0.2 * torch.rand(shape, generator=generator, device="cpu")
        elif tensor.ndim <= 1:
            is_zero = key.endswith(("bias", "running_mean"))
            tensors[key] = torch.zeros(shape, device="cpu") if is_zero else torch.ones(shape, device="cpu")
        else:
            fan_in = tensor[0].numel()
            tensors[key] = (2.0 / fan_in) ** 0.5 * torch.randn(shape, generator=generator, device="cpu")
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many types for damaged files
        raise UserError(f"cannot read weights from {path}: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # OpenMMLab keeps notes beside it
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"cannot read weights from {path}: expected a mapping of names to tensors")
    return dict(content)
