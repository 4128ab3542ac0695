"""``python -m tests.evaluation.killed WHAT COUNT WORDS...``: smalti with these words, killed at the COUNT-th WHAT.

WHAT is ``see`` (a batch went through the tokenizer), ``write`` (a file of what was measured lies beside its place, not
yet in it), ``moved`` (it is in its place) or ``picture``; progress is saved after each batch.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from smalti.cli import main
from smalti.evaluation import partial, passing, pictures
from tests.evaluation.tokenizers import Halver


def killing(before: bool, call: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The call, whose ``count``-th use kills this process before or after it."""
    left = [count]

    def counted(*arguments: Any) -> Any:
        left[0] -= 1
        if before and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments)
        if not before and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return counted


if __name__ == "__main__":
    what, count, *words = sys.argv[1:]
    passing.SAVED_EVERY = passing.DEAR = 0.0
    places: dict[str, tuple[Any, str, bool]] = {
        "see": (Halver, "encode", False),
        "write": (partial.os, "replace", True),
        "moved": (partial.os, "replace", False),
        "picture": (pictures, "picture", False),
    }
    owner, name, before = places[what]
    setattr(owner, name, killing(before, getattr(owner, name), int(count)))
    sys.argv = ["smalti", *words]
    sys.exit(main())
