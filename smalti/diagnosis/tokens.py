"""Rules about models of tokens: what they are given, and whether anything is left to learn in it."""

from collections.abc import Iterator

from smalti.diagnosis.history import View
from smalti.diagnosis.rule import Rule, Sighting

TOKENS = "train/tokens/"
ENOUGH = 16  # different tokens after which it is no chance that all of them are in the lower half: 2^-16


def _unused(view: View) -> Iterator[Sighting]:
    for name, codes in view.between(TOKENS, "/codes"):
        at = f"{TOKENS}{name}/"
        highest, distinct = view.high(f"{at}highest"), view.high(f"{at}distinct")
        below = highest + 1.0 <= 0.5 * codes and view.high(f"{at}different") >= ENOUGH
        if view.seen >= 3 and (below or distinct < 0.1):
            evidence = {"codes": codes, "highest token": highest, "share of codes within reach": distinct}
            yield Sighting(subject=f"codebook {name}", evidence=evidence)


def _constant(view: View) -> Iterator[Sighting]:
    for name, agree in view.between(TOKENS, "/agree"):
        if agree > 0.98:
            yield Sighting(subject=f"codebook {name}", evidence={"share of places with the same token": agree})


RULES = (
    Rule(
        id="vocabulary-unused",
        title="Most of the vocabulary never appears",
        look=_unused,
        threshold=f"all tokens so far lie in the lower half of the codes (with {ENOUGH} different ones, by chance in "
        "one of 65,000 runs), or no batch holds a tenth of the codes that so many tokens could fill",
        cause="the tokens are of a smaller codebook than the model predicts, or of a tokenizer that uses few of its "
        "codes: most scores are never right",
        change="model.codebooks: the sizes that store.json of the tokens names; a tokenizer whose codes are in use "
        "(smalti doctor on its run)",
    ),
    Rule(
        id="constant-tokens",
        title="Tokens that do not vary",
        look=_constant,
        threshold="an image and the next one have the same token at over 98 % of the places",
        cause="all images have the same tokens: there is nothing to learn, and the loss says nothing",
        change="data.source: look at the store (smalti detokenize), and at the images it was made of",
    ),
)
