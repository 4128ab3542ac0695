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

    @property
    def locations(self) -> list[str]:
        """Places in the recipe that say where the data lie, not what they are."""
        return [
            f"{place}.{option}" for place, source in self.sources.items() for option in getattr(source, "locations", ())
        ]

    def settle(
        self, stored: Mapping[str, Any], moved: Sequence[str], allowed: bool, state: TrainState
    ) -> tuple[dict[str, Any], list[str]]:
        """Refuses data that are not those of the run, or accepts them.

        Args:
            stored: place -> fingerprint, of the checkpoint that the run goes on from; one of older versions has none.
            moved: ``place: old -> new`` for data that lie elsewhere now, which is no change if they are the same.
            allowed: whether the user accepts changes.
            state: of that checkpoint.

        Returns:
            Place -> fingerprint, for the checkpoints to come, and what changed, to be told in the log.

        Raises:
            UserError: naming all changes, if they are not accepted.
        """
        known = {place: entry for place, entry in stored.items() if entry.get("format") == FORMAT}
        found, changed = {}, []
        for place, source in self.sources.items():
            now = Fingerprint.of(source, place)  # of millions of files; not kept any longer than it takes
            found[place] = now.stored()
            if place in known:
                changed += [f"{place}: {line}" for line in now.changes_since(known[place])]
        unproven = [line for line in moved if not any(line.startswith(f"{place}.") for place in known)]
        if (changed or unproven) and not allowed:
            raise UserError(_refusal(changed, moved if changed else unproven, state.step))
        return found, _told([*changed, *unproven], state)


def _told(changed: Sequence[str], state: TrainState) -> list[str]:
    told = [f"the data are not those of step {state.step}: {line}" for line in changed]
    if state.best_step is not None and any(line.startswith("validation.") for line in changed):
        best = f"the best value so far, {state.best_value:.6g} at step {state.best_step}"
        told.append(f"{best}, was measured on the former held-out images: those that follow are compared with it")
    return told


def _refusal(changed: Sequence[str], moved: Sequence[str], step: int) -> str:
    if changed:
        head = f"the data are not those that the run was trained on up to step {step}:"
    else:
        head = "the run was started with another recipe, and no checkpoint says whether these are the same data:"
    return "\n".join([head, *(f"  {line}" for line in (*changed, *moved)), _GO_ON])
