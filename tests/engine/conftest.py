"""One pair of processes for all tests that need two: starting them costs more than what they compute."""

from typing import Any

import pytest

from tests.engine.job import PAIRS, case, launch

SPACES = ("codes", "gaussian")


@pytest.fixture(scope="session")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Answers of two processes: ``resume-<precision>``, ``five_steps-<space>``, ``changed-<allowed>`` ..."""
    questions: dict[str, Any] = {
        f"resume-{precision}": ("resume", case(precision, workers))
        for precision, processes, workers in PAIRS
        if processes == 2
    }
    questions |= {f"five_steps-{space}": ("five_steps", {"space": space, "batch_size": 4}) for space in SPACES}
    questions |= {
        f"validated-{count}": ("validated", {"space": "gaussian", "held_out_images": count}) for count in (1, 5)
    }
    questions["validated-codes"] = ("validated", {"space": "codes", "held_out_images": 5})  # a term that waits for all
    questions |= {
        f"troubled-{trouble}-{place}": ("troubled", {"trouble": trouble, "place": place})
        for trouble in ("fails", "waits")
        for place in ("source", "held_out_source")
    }
    questions |= {f"changed-{allowed}": ("changed", {"changed_on": 0, "allowed": allowed}) for allowed in (False, True)}
    answers = launch(tmp_path_factory.mktemp("two_processes"), list(questions.values()))
    return dict(zip(questions, answers, strict=True))
