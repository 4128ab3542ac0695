"""What any value and any name of a configuration must be, whatever its annotation says.

Numbers are finite, unless an annotation declares otherwise (``Field(allow_inf_nan=True)``), and whole numbers have 64
bits, as those of torch do. Names that a user gives to terms, metrics, teachers, codebooks become parts of log names, of
keys of weights and of file names: letters, digits, ``_`` and ``-``, and no word that stands there already.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from smalti.registry import shown

LARGEST = 2**63 - 1
LONGEST_NAME = 64
AT_START = "_start"  # of what evaluation.json holds of the untrained model

# Words of the log, of evaluation.json and of recipes beside which names stand.
TAKEN = frozenset(
    {
        *("generator", "discriminator", "teachers", "type", "options", "merge", "tiny"),
        *("step", "images", "training_images", "seconds", "objective", "index", "name", "train", "val"),
        *("images_per_second", "eta_seconds", "skipped", "warning", "paths"),
        *("total", "raw", "weight", "weighted", "status", "updates", "skipped_steps", "learning_rate"),
        *("gradient_norm", "critic", "augment", "clipped", "logits_real", "logits_fake"),
        *("fit", "fit_max", "gradient_norm_max", "clip_active", "clip_depth", "update_ratio"),
    }
)


def number_problem(value: object) -> str | None:
    """What is wrong with a number, None if nothing is, or it is no number.

    >>> number_problem(1e999), number_problem(10**30), number_problem(3)
    ('inf: expected a finite number', '1000000000000000000000000000000: expected a whole number of 64 bits', None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        return f"{shown(value)}: expected a whole number of 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}: expected a finite number"
    return None


def number_problems(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Place and message of each number that is wrong in mappings and lists inside each other."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from number_problems(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from number_problems(item, f"{place}.{index}")
    elif (message := number_problem(value)) is not None:
        yield place, message


def key_problem(name: str) -> str | None:
    """What is wrong with a key that a user chose, None if nothing is.

    Beside a name, it may be one with a number behind a dot, as the planes of a residual codebook have.

    >>> key_problem("visual"), key_problem("vq.0")
    (None, None)
    """
    return _word_problem(re.sub(r"\.[0-9]+$", "", name), name)


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a term, a metric, a teacher, a codebook or the like; None if nothing is.

    >>> name_problem("pixel_2"), name_problem("step")
    (None, "'step': expected a name that means nothing else in the log")
    """
    if name in TAKEN or name.endswith(AT_START):
        return f"{name!r}: expected a name that means nothing else in the log"
    return _word_problem(name, name)


def _word_problem(word: str, name: str) -> str | None:
    if re.fullmatch(r"[^\W\d][\w-]*", word) and len(name) <= LONGEST_NAME:
        return None
    return f"{shown(name)}: expected a name of at most {LONGEST_NAME} letters, digits, '_' and '-'"


def repeated(values: Iterable[object]) -> list[object]:
    """What stands more than once in a list, in order.

    >>> repeated(["pixel", "lpips", "pixel"])
    ['pixel']
    """
    return [value for value, count in Counter(values).items() if count > 1]
