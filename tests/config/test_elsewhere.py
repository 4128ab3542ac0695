"""What an import path may name: it must fit its kind before it is called, and what fits none is not even imported."""

import sys
from pathlib import Path
from typing import Any

import pytest

import smalti
from smalti.bottlenecks import Bottleneck
from smalti.data import ImageSource
from smalti.discriminators import Augmentation, Discriminator
from smalti.extractors import Extractor, TextImageExtractor
from smalti.interop import Format
from smalti.losses import Loss
from smalti.metrics import Metric
from smalti.models import Decoder, Encoder, Model
from smalti.registry import Part, UserError, resolve

KINDS: dict[str, type[Part]] = {
    base.__name__: base
    for base in (
        *(Model, Encoder, Decoder, Bottleneck, Discriminator, Augmentation, Loss, Extractor, TextImageExtractor),
        *(ImageSource, Metric, Format),
    )
}

# Callables that stand for no part, each with what the message says of it.
NEVER = {
    "os.abort": "standard library",
    "builtins.exec": "standard library",
    "builtins.dict": "standard library",
    "subprocess.Popen": "standard library",
    "collections.UserList": "standard library",
    "this.s": "standard library",
    "antigravity.webbrowser": "standard library",
    "idlelib.idle.main": "standard library",
    "test.support.run_unittest": "standard library",
    "lib2to3.main.main": "",
    "torch.load": "",
    "torch.save": "",
    "torch.hub.load": "",
    "torch.nn.Module": "",
    "torch.tensor": "no plain function",
    "torch.nn": "",
    "numpy.memmap": "",
    "numpy.load": "",
    "yaml.unsafe_load": "",
    "huggingface_hub.snapshot_download": "",
    "smalti.train": "",
    "smalti.registry.Part": "",
    "smalti.registry.UserError": "",
}

MALFORMED = [
    *(
        ".x",
        "x.",
        ".",
        "..",
        "a..b",
        "x.x.1",
        "a b.c",
        "a.b c",
        "a.b()",
        "a/b.c",
        "../x.y",
        "os;x.y",
        "a.class",
        "a.\n",
    ),
    *("smalti.__main__.main", "pip.__main__.main", "a." * 200 + "b", "é." + "x" * 5000),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", NEVER)
def test_a_callable_that_fits_no_kind_is_refused_with_the_name_of_the_kind(path: str, kind: str) -> None:
    base = KINDS[kind]
    with pytest.raises(UserError) as caught:
        resolve(path, base)
    said = str(caught.value)
    assert base.kind in said
    assert path in said
    assert NEVER[path] in said or not base.functions


@pytest.mark.parametrize("path", MALFORMED)
def test_a_malformed_import_path_is_said_to_be_none(path: str) -> None:
    with pytest.raises(UserError, match="expected an import path") as caught:
        resolve(path, Loss)
    assert len(str(caught.value)) < 250


def test_modules_of_python_are_not_imported() -> None:
    for name in ("this", "antigravity", "idlelib", "idlelib.idle", "turtledemo"):
        already = name in sys.modules
        with pytest.raises(UserError, match="standard library"):
            resolve(f"{name}.x", Loss)
        assert (name in sys.modules) == already


OWN = '''
import os
from collections import UserList
from functools import partial
from os import abort, system as run
from subprocess import check_output

import torch
from torch import Tensor, load, nn

from smalti.data import ImageSource
from smalti.losses import Loss
from smalti.losses.l1 import L1
from smalti.metrics import Metric

def distance(prediction, target, *, power=2.0): return (prediction - target).abs().pow(power).mean()
async def later(prediction): return prediction
def several(prediction): yield prediction
bound = partial(distance, power=1.0)
made = nn.L1Loss()
number = 3

class Absolute(nn.L1Loss): pass
class Own(L1): pass
class Lengthy:
    def __len__(self): return 3
    def __getitem__(self, index): return {}
class Half(ImageSource):
    def __len__(self): return 3
class Whole(Half):
    def __getitem__(self, index): return {}
class Mean(Metric):
    def create(self): return None
    def update(self, accumulator, observation): return None
class Accumulator:
    def update(self, values): return None
class Embedder(nn.Module):
    def forward(self, images): return (images,)
    def embed_text(self, texts): return None
'''  # fmt: skip

# Name in the user's module -> kinds it may stand for.
FITS = {
    "distance": {"Loss"},
    "Absolute": {"Loss", "Model", "Encoder", "Decoder", "Bottleneck", "Discriminator", "Augmentation", "Extractor"},
    "Own": {"Loss"},
    "Lengthy": {"ImageSource"},
    "Whole": {"ImageSource"},
    "Mean": {"Metric"},
    "Embedder": {
        *{"Loss", "Model", "Encoder", "Decoder", "Bottleneck", "Discriminator", "Augmentation", "Extractor"},
        "TextImageExtractor",
    },
}


NONE = [
    "abort",
    "run",
    "check_output",
    "load",
    "UserList",
    "later",
    "several",
    "bound",
    "made",
    "number",
    "os",
    "torch",
]
NONE += ["partial", "Half", "Accumulator", "Tensor", "Loss", "Metric"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_parts"
    sys.modules.pop("own_parts", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FITS, *NONE])
def test_what_a_user_wrote_stands_for_the_kinds_it_fits_and_no_other(name: str, kind: str, own: str) -> None:
    if kind in FITS.get(name, ()):
        assert callable(resolve(f"{own}.{name}", KINDS[kind]))
        return
    with pytest.raises(UserError, match=f"expected an? {KINDS[kind].kind} class"):
        resolve(f"{own}.{name}", KINDS[kind])


@pytest.mark.parametrize("path", ["torch.nn.L1Loss", "torch.nn.functional.l1_loss", "smalti.losses.l1.l1"])
def test_losses_of_libraries_stay_usable(path: str) -> None:
    assert callable(resolve(path, Loss))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("import no_such_package", "no_such_package"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("f = lambda n: f(n + 1)\nf(0)", "RecursionError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_message(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_parts.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot import 'broken_parts\.x'") as caught:
        resolve("broken_parts.x", Loss)
    assert says in str(caught.value)


def test_a_function_of_an_installed_library_must_say_that_it_returns_a_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    text = "from torch import Tensor\ndef silent(prediction): ...\ndef honest(prediction) -> Tensor: ...\n"
    (place / "installed_losses.py").write_text(text + "def quoted(prediction) -> 'Tensor | None': ...\n")
    monkeypatch.syspath_prepend(str(place))
    for name in ("honest", "quoted"):
        assert callable(resolve(f"installed_losses.{name}", Loss))
    with pytest.raises(UserError, match="-> Tensor"):
        resolve("installed_losses.silent", Loss)


SOURCE = """
from PIL import Image
class Two:
    def __len__(self): return 2
    def __getitem__(self, index): return {"image": Image.radial_gradient("L").resize((16, 16 + 4 * index))}
"""

RECIPE = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 4, widths: [8], norm: none}
objective: {generator: {pixel: {type: mse}}}
data: {source: {type: two_images.Two}, transform: {size: 8, crop: center}, batch_size: 2}
validation: {data: {source: {type: two_images.Two}, transform: {size: 8, crop: center}}}
optim: {generator: {}}
engine: {max_steps: 1, sample_every: 0}
"""


def test_a_data_source_of_two_methods_is_trained_and_validated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the protocol promises is all the engine asks for."""
    (tmp_path / "two_images.py").write_text(SOURCE)
    (tmp_path / "own.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = smalti.train(tmp_path / "own.yaml", out=tmp_path / "run", quiet=True)
    assert result.finished
    assert result.evaluation["objective"]["generator/pixel/raw"] > 0.0
