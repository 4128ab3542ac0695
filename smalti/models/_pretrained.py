"""Saved models: ``config.json`` says what to build and which weights belong to it, ``model.safetensors`` holds them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smalti import __version__
from smalti.config import ConfigError, build, config_of, read_json, read_text, require_registered
from smalti.models._earlier import renamed, upgraded
from smalti.models._hub import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    hf_hub_download,
)
from smalti.nn.budget import within_budget
from smalti.nn.meta import is_of_meta, on_meta_device
from smalti.registry import UserError
from smalti.writing import whole, write_whole

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT_VERSION = 1
# Entries of a config.json of diffusers and of transformers, which ours never has.
_OF_OTHERS = frozenset({"_class_name", "_diffusers_version", "architectures", "model_type", "transformers_version"})
RENAMED = "renamed"  # names of tensors that changed since the model was saved

_M = TypeVar("_M", bound=nn.Module)


def save_model(model: nn.Module, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``; each file appears complete or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with whole(folder / WEIGHTS) as path:
        save_file(state, path)
    config = {
        "format_version": FORMAT_VERSION,
        "smalti_version": __version__,
        "weights_sha256": sha256(folder / WEIGHTS),
        "model": config_of(model),
    }
    _write_config(folder, config)


def set_options(folder: Path, **options: Any) -> None:
    """Changes options of the model in ``config.json``, its weights left alone; no option that changes a tensor.

    Raises:
        UserError: if there is no readable ``config.json``.
    """
    config = _read(folder / CONFIG)
    config["model"] = {**config["model"], **options}
    _write_config(folder, config)


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def load_model(
    base: type[_M], config_file: Path, weights_file: Path, *, trust_code: bool = False, map_location: str = "cpu"
) -> _M:
    """The model of a saved folder in evaluation mode, in the dtype it was saved in.

    Raises:
        UserError: naming the file that is missing, damaged or does not fit, or a foreign class without ``trust_code``.
    """
    config = read_config(config_file, trust_code=trust_code)
    state = read_weights(weights_file, config, map_location)
    return filled(base, config["model"], state, weights_file, trust_code=trust_code, map_location=map_location)


def filled(
    base: type[_M],
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: Path,
    *,
    trust_code: bool = False,
    map_location: str = "cpu",
) -> _M:
    """A network of the kind ``base`` with the given weights, in evaluation mode and in their dtype.

    Args:
        base: the kind.
        config: what to build.
        state: its tensors.
        where: they come from, for messages.
        trust_code: whether ``config`` may name classes outside smalti.
        map_location: device to load to.

    Raises:
        UserError: if it is no such network, or the weights do not fit it.
    """
    try:
        _check_shapes(config, base, state, where, trust_code)
        with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's numbers stay
            model = build(config, base, trust_code=trust_code)
    except ConfigError as error:
        raise UserError(f"{where}: its configuration cannot be built: {error}") from error
    check_fit(model, state, where)
    model.load_state_dict(dict(state), assign=True)
    return model.to(map_location).eval()


def _check_shapes(config: Any, base: type[_M], state: Mapping[str, Tensor], path: Path, trust_code: bool) -> None:
    """Whether weights fit, known from shapes alone: sizes that they do not have are refused before they are allocated.

    Raises:
        UserError: naming what does not fit.
    """
    try:
        with on_meta_device(), within_budget():
            network = build(config, base, trust_code=trust_code)
    except ConfigError as error:
        if is_of_meta(error):
            return  # a class from elsewhere that looks at values: known once it is built
        raise
    check_fit(network, state, path)


def is_saved_model(folder: Path) -> bool:
    """Whether a folder's ``config.json`` is one of ours, damaged or not; one of another library says its class."""
    try:
        config = read_json((folder / CONFIG).read_text(encoding="utf-8"), CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return not isinstance(config, Mapping) or not _OF_OTHERS & config.keys()


def read_config(path: Path, *, trust_code: bool = False) -> dict[str, Any]:
    """The mapping in ``config.json``, with a mapping ``model`` and a known format version, in today's words.

    Raises:
        UserError: if the file is missing, damaged, or from a newer version, or names classes outside smalti and is not
            trusted to.
    """
    config = _read(path)
    config["model"], config[RENAMED] = upgraded(config["model"])
    require_registered(config, path, trust_code)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        config = read_json(read_text(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a saved model is a folder with {CONFIG} and {WEIGHTS}") from None
    if not isinstance(config, Mapping) or not isinstance(config.get("model"), Mapping):
        raise UserError(f"{path}: expected a mapping with the entry 'model'; is this a model saved by smalti?")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version={version!r}: this smalti ({__version__}) reads {FORMAT_VERSION}")
    return dict(config)


def fetch(source: str, name: str, options: Mapping[str, Any]) -> Path:
    """The file ``name`` of a local folder, or of a repository on the Hugging Face Hub (downloaded into its cache).

    ``owner/name`` is a repository unless there is a folder ``owner`` here.

    Raises:
        UserError: if ``source`` is neither, or has no such file.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; a saved model is a folder with {CONFIG} and {WEIGHTS}")
        return folder / name
    here = folder.exists() or folder.is_absolute() or source.startswith(".") or folder.parent.is_dir()
    if here or source.count("/") != 1:  # runs/typo beside runs/mine is no repository to ask the Hub for, in vain
        raise UserError(f"{source}: no such folder; expected a saved model's folder or a Hub repository 'owner/name'")
    try:
        return Path(hf_hub_download(source, name, **options))
    except EntryNotFoundError as error:
        raise UserError(f"{source}: neither a folder here nor a reachable repository with {name}: {error}") from error
    except (HFValidationError, HfHubHTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError(f"{source}: neither a folder here nor a reachable repository: {error}") from error


def read_weights(path: Path, config: Mapping[str, Any], map_location: str = "cpu") -> dict[str, Tensor]:
    """The tensors in ``model.safetensors``, checked against the configuration beside it, under today's names.

    Raises:
        UserError: if the file is missing or damaged.
    """
    expected = config.get("weights_sha256")
    if not path.is_file():
        raise UserError(f"{path}: no such file; a saved model is a folder with {CONFIG} and {WEIGHTS}")
    if expected is None:
        raise UserError(f"{path.with_name(CONFIG)}: no 'weights_sha256', so {path.name} cannot be checked")
    actual = sha256(path)
    if actual != expected:
        raise UserError(f"{path}: damaged, its sha256 is {actual[:12]}... and {CONFIG} expects {str(expected)[:12]}...")
    try:
        return renamed(load_file(path, device=map_location), config.get(RENAMED) or {})
    except SafetensorError as error:
        raise UserError(f"{path}: damaged, it is no safetensors file ({error})") from error


def check_fit(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Whether tensors are those of a network.

    Raises:
        UserError: listing what is missing, unexpected or of another shape.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{path}: does not fit its configuration: {'; '.join(problems[:5])}{more}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
