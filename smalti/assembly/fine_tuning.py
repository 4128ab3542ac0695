"""Fine-tuning: networks that start from saved weights, and parts of them that stay as they are.

``model: {init: path, freeze: [encoder, bottleneck]}`` takes the network of a saved model, a run or a checkpoint of
another project; options beside ``init`` change it. ``discriminator: {init: path}`` takes the one that ``smalti convert
--keep-discriminator`` carried along.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from smalti.config import ConfigError, Problem, Spec, Validator
from smalti.config.document import merge
from smalti.config.limits import repeated
from smalti.interop.converting import DISCRIMINATOR
from smalti.interop.opening import start_config, start_state
from smalti.models._pretrained import CONFIG, check_fit
from smalti.nn.budget import within_budget
from smalti.nn.freezing import freeze
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError, shown, suggest

NETWORKS = ("model", "discriminator")
START_FIELDS = ("init", "freeze")


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a network starts.

    Args:
        init: path of the weights, as written.
        frozen: dotted names of parts that stay as they are.
        trust_code: whether its configuration may name classes outside smalti; never written down.
    """

    init: str
    frozen: tuple[str, ...] = ()
    trust_code: bool = False

    def plain(self) -> dict[str, Any]:
        """The fields as a recipe holds them."""
        return {"init": self.init, **({"freeze": list(self.frozen)} if self.frozen else {})}


def read_start(section: Any, name: str, validator: Validator, *, trust_code: bool = False) -> tuple[Any, Start | None]:
    """The section with the saved network's options under its own, and where it starts; problems go to ``validator``.

    The recipe may name the user's own classes, what comes with the weights may not: it is looked at before the two
    are one.

    Args:
        section: of the recipe, as written.
        name: ``model`` or ``discriminator``.
        validator: collects problems.
        trust_code: whether the saved network's configuration may name classes outside smalti.

    Returns:
        The section to validate further, None if that makes no sense; and its start, if it has one.
    """
    if not isinstance(section, Mapping) or not any(field in section for field in START_FIELDS):
        return section, None
    options = {key: value for key, value in section.items() if key not in START_FIELDS}
    init, frozen = section.get("init"), section.get("freeze") or []
    if not isinstance(init, str):
        wrong = f"{init!r}: expected a path" if "init" in section else "missing: 'freeze' keeps parts of what it names"
        validator.report(f"{name}.init", wrong)
        return (options if "type" in options else None), None
    if not isinstance(frozen, list) or not all(isinstance(part, str) for part in frozen):
        validator.report(f"{name}.freeze", f"{shown(frozen)}: expected a list of parts, such as [encoder, bottleneck]")
        frozen = []
    for twice in repeated(frozen):
        validator.report(f"{name}.freeze", f"{shown(twice)} stands twice")
    try:
        saved = start_config(_place(init, name), name, trust_code=trust_code)
        return merge(saved, options), Start(init=init, frozen=tuple(frozen), trust_code=trust_code)
    except UserError as error:
        validator.report(f"{name}.init", str(error))
        return (options if "type" in options else None), None


def _place(init: str, name: str) -> Path | str:
    beside = Path(init) / DISCRIMINATOR
    return beside if name == DISCRIMINATOR and (beside / CONFIG).is_file() else init


def start_problems(starts: Mapping[str, Start], specs: Mapping[str, Any]) -> Iterator[Problem]:
    """Parts to freeze that a network has not, or that leave nothing to train.

    Args:
        starts: network -> where it starts.
        specs: network -> its validated description.
    """
    for name, start in starts.items():
        spec = specs.get(name)
        if not start.frozen or not isinstance(spec, Spec):
            continue
        try:
            with on_meta_device(), within_budget():
                network: nn.Module = spec.build()
        except ConfigError:
            continue  # reported where networks are checked
        parts = dict(network.named_modules())
        unknown = [part for part in start.frozen if part not in parts or not part]
        for part in unknown:
            known = [place for place in parts if place and place.count(".") < 2]
            yield Problem(f"{name}.freeze", f"no part {part!r}{suggest(part, known)}")
        kept = tuple(f"{part}." for part in start.frozen)
        if not unknown and all(key.startswith(kept) for key, _ in network.named_parameters()):
            yield Problem(f"{name}.freeze", "nothing is left to train")


def apply_start(name: str, start: Start, network: nn.Module) -> None:
    """Loads the weights and freezes what stays.

    Raises:
        UserError: listing what does not fit.
    """
    place = _place(start.init, name)
    state = start_state(place, name, trust_code=start.trust_code)
    check_fit(network, state, Path(place))
    network.load_state_dict(state)
    for part in start.frozen:
        freeze(network.get_submodule(part))
