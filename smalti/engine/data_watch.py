"""Whether the data of a resumed run are those it was trained on: another image or order is another stream."""

from collections.abc import Mapping, Sequence
from typing import Any

from smalti.engine.fingerprint import FORMAT, Fingerprint
from smalti.engine.state import TrainState
from smalti.registry import UserError

_GO_ON = "--allow-changed-data (allow_changed_data=True) goes on with what is there now"


class DataWatch:
    """Compares what the sources of a run consist of with what a checkpoint says of them.

    Args:
        sources: place in the recipe -> data source, training and held-out.
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self.sources = sources
        self._now: dict[str, Fingerprint] = {}

    @property
    def locations(self) -> list[str]:
        """Places in the recipe that say where the data lie, not what they are."""
        return [
            f"{place}.{option}" for place, source in self.sources.items() for option in getattr(source, "locations", ())
        ]

    def stored(self) -> dict[str, Any]:
        """What the sources consist of now, for checkpoints."""
        return {place: found.stored() for place, found in self._fingerprints().items()}

    def _fingerprints(self) -> dict[str, Fingerprint]:
        if not self._now:
            self._now = {place: Fingerprint.of(source, place) for place, source in self.sources.items()}
        return self._now

    def compare(self, stored: Mapping[str, Any], moved: Sequence[str], allowed: bool, state: TrainState) -> list[str]:
        """What changed since the data were ``stored``, to be told in the log.

        Args:
            stored: place -> fingerprint, of the checkpoint that the run goes on from; one of older versions has none.
            moved: ``place: old -> new`` for data that lie elsewhere now, which is no change if they are the same.
            allowed: whether the user accepts changes.
            state: of that checkpoint.

        Raises:
            UserError: naming all changes, if they are not accepted.
        """
        known = {place: entry for place, entry in stored.items() if entry.get("format") == FORMAT}
        unproven = [line for line in moved if not any(line.startswith(f"{place}.") for place in known)]
        changed = [
            f"{place}: {line}"
            for place, found in self._fingerprints().items()
            if place in known
            for line in found.changes_since(known[place])
        ]
        if (changed or unproven) and not allowed:
            raise UserError(_refusal(changed, moved if changed else unproven, state.step))
        told = [f"the data are not those of step {state.step}: {line}" for line in (*changed, *unproven)]
        held_out = any(line.startswith("validation.") for line in (*changed, *unproven))
        if held_out and state.best_step is not None:
            best = f"the best value so far, {state.best_value:.6g} at step {state.best_step}"
            told.append(f"{best}, was measured on the former held-out images: those that follow are compared with it")
        return told


def _refusal(changed: Sequence[str], moved: Sequence[str], step: int) -> str:
    if changed:
        head = f"the data are not those that the run was trained on up to step {step}:"
    else:
        head = "the run was started with another recipe, and no checkpoint says whether these are the same data:"
    return "\n".join([head, *(f"  {line}" for line in (*changed, *moved)), _GO_ON])
