"""The words of the context: what they are called, and which of them depend on what.

Constants of a pass (``target``, ``batch.*``, ...) carry no gradient to the model. *Image names* depend on the model
only through the images that the adversary judges. Everything else is an output of the model, dotted as annotated.
"""

from collections.abc import Iterable

PREDICTION = frozenset({"prediction", "fake"})
TARGET = frozenset({"target", "real"})
REAL_JUDGEMENT = frozenset({"logits_real", "features_real"})
FAKE_JUDGEMENT = frozenset({"logits_fake", "features_fake"})
DISCRIMINATOR = frozenset({"discriminator"})
GENERATOR = frozenset({"generator"})
STEP = frozenset({"step"})
ROOTS = ("batch", "teacher")
LABEL = "label"  # batch column that a class-conditional network is told
SHORT_FORMS = ("posterior", "codebooks")  # of bottleneck.posterior, bottleneck.codebooks

ADVERSARIAL = FAKE_JUDGEMENT | DISCRIMINATOR  # how a term listens to the adversary
NEEDS_DISCRIMINATOR = ADVERSARIAL | REAL_JUDGEMENT
RESERVED = PREDICTION | TARGET | NEEDS_DISCRIMINATOR | GENERATOR | STEP
_CONSTANT = TARGET | REAL_JUDGEMENT | STEP


def is_constant(name: str) -> bool:
    """Whether the context value carries no gradient to the model.

    >>> is_constant("batch.mask"), is_constant("prediction")
    (True, False)
    """
    return name in _CONSTANT or name.partition(".")[0] in ROOTS


def is_image(name: str, judged: str | None) -> bool:
    """Whether the value depends on the model only through the output named ``judged``."""
    return judged is not None and (name in PREDICTION | ADVERSARIAL or name == judged)


def is_image_space(reads: Iterable[str], judged: str | None) -> bool:
    """Whether a term that asks for these names can be evaluated on a detached image."""
    return all(is_constant(name) or is_image(name, judged) for name in reads)


def is_adversarial(reads: Iterable[str]) -> bool:
    """Whether a term that asks for these names listens to the adversary."""
    return not ADVERSARIAL.isdisjoint(reads)


def compares_with_data(reads: Iterable[str], judged: str | None) -> bool:
    """Whether a term that asks for these names says how well data are met: it asks for something of them, and not for
    the adversary. Where nothing is judged, whatever it asks for.

    >>> [compares_with_data(names, "images") for names in ({"images", "target"}, {"posterior"}, {"logits_fake"})]
    [True, False, False]
    """
    names = set(reads)
    asks = judged is None or any(is_constant(name) and name not in STEP for name in names)
    return asks and not is_adversarial(names)
