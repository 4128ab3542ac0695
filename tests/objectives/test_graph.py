"""What is wrong with terms is known before any tensor exists, with the nearest valid name."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.losses.codebook import CodebookLoss
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.kl import KL
from smalti.losses.l1 import L1
from smalti.models.autoencoder import Autoencoder
from smalti.objectives import Adaptive, DiscriminatorPhase, GeneratorPhase, Graph, Term
from smalti.objectives.context import Context
from smalti.objectives.names import is_image_space
from smalti.outputs import DiagonalGaussian
from smalti.registry import UserError
from tests.objectives.toys import NOW, ToyCritic, ToyModel, batch_of

VQ = Graph(
    model=Autoencoder,
    discriminator=True,
    provides={"indices", "codebooks"},
    keys={"codebooks": ["visual"], "heads": []},
    teachers=["clip"],
    columns=["image", "mask"],
)
PIXEL = Term(name="pixel", loss=L1)


def messages(graph: Graph, phase: str, *terms: Term) -> dict[str, str]:
    return {problem.place: problem.message for problem in graph.check(phase, terms)}


def test_names_come_from_the_annotations_of_what_the_model_returns() -> None:
    names = VQ.names("generator")
    assert {"prediction", "fake", "target", "real", "step", "batch.mask", "teacher.clip", "logits_fake"} <= names
    assert {"reconstruction", "bottleneck.latent", "bottleneck.indices", "discriminator"} <= names
    assert {"codebooks", "bottleneck.codebooks", "codebooks.visual.z", "bottleneck.codebooks.visual.quantized"} <= names
    assert not any(name.startswith(("posterior", "bottleneck.posterior", "heads", "generator")) for name in names)


def test_the_discriminators_phase_knows_no_output_of_the_model_but_the_images() -> None:
    names = VQ.names("discriminator")
    assert {"fake", "real", "logits_real", "logits_fake", "features_real", "discriminator", "batch.mask"} <= names
    assert not any(name.startswith(("bottleneck", "codebooks", "teacher", "reconstruction")) for name in names)


def test_a_continuous_bottleneck_has_a_posterior_and_no_codes() -> None:
    names = Graph(model=Autoencoder, provides={"posterior"}, keys={"heads": []}).names("generator")
    assert {"posterior", "posterior.mean", "bottleneck.posterior.logvar"} <= names
    assert not any("codebooks" in name or "logits" in name or "indices" in name for name in names)


def test_where_nothing_is_declared_everything_annotated_is_allowed() -> None:
    graph = Graph(model=ToyModel)
    term = Term(name="a", loss=lambda x, y, z: x, inputs={"x": "heads.any", "y": "codebooks.some.z", "z": "posterior"})
    assert not graph.check("generator", [term])


def test_a_good_recipe_has_no_problem() -> None:
    terms = [
        PIXEL,
        Term(name="codes", loss=CodebookLoss),
        Term(name="gan", loss=HingeGenerator, adaptive=Adaptive(reference=["pixel"]), start=10),
    ]
    assert not VQ.check("generator", terms)
    assert not VQ.check("discriminator", [Term(name="gan", loss=HingeDiscriminator)])


def image_and(name: str) -> Term:
    return Term(name="t", loss=lambda prediction, other: prediction, inputs={"other": name})


BAD: list[tuple[str, list[Term], str, str]] = [
    (
        "generator",
        [Term(name="pixel", loss=L1, inputs={"traget": "real"})],
        "pixel.inputs.traget",
        "did you mean 'target'",
    ),
    (
        "generator",
        [Term(name="pixel", loss=L1, inputs={"target": "reel"})],
        "pixel.inputs.target",
        "did you mean 'real'",
    ),
    ("generator", [Term(name="mse", loss=nn.MSELoss, inputs={"target": "real"})], "mse.inputs", "'input' .* no value"),
    ("generator", [image_and("batch.masc")], "t.inputs.other", "no column 'masc'; did you mean 'mask'"),
    ("generator", [image_and("teacher.clop")], "t.inputs.other", "did you mean 'teacher.clip'"),
    ("generator", [image_and("codebooks.visuel.z")], "t.inputs.other", "did you mean 'codebooks.visual.z'"),
    ("generator", [Term(name="kl", loss=KL)], "kl.inputs", "'posterior' is not provided by this model"),
    ("generator", [image_and("heads.clip")], "t.inputs.other", "'heads.clip' is not provided"),
    ("discriminator", [Term(name="codes", loss=CodebookLoss)], "codes.inputs", "only in the generator phase"),
    ("discriminator", [Term(name="gan", loss=HingeGenerator)], "gan.type", "for the generator phase"),
    (
        "discriminator",
        [Term(name="gan", loss=HingeDiscriminator, adaptive=Adaptive(reference=["a"]))],
        "gan.adaptive",
        "belongs to the generator",
    ),
    ("generator", [PIXEL, PIXEL], "pixel", "two terms are called 'pixel'.*merge: sum"),
    (
        "generator",
        [PIXEL, Term(name="gan", loss=HingeGenerator, adaptive=Adaptive(reference=["pixle"]))],
        "gan.adaptive",
        "unknown term 'pixle'; did you mean 'pixel'",
    ),
    (
        "generator",
        [PIXEL, Term(name="gan", loss=HingeGenerator, adaptive=Adaptive(reference=["gan"]))],
        "gan.adaptive",
        "is the term itself",
    ),
    (
        "generator",
        [Term(name="c", loss=CodebookLoss), Term(name="g", loss=HingeGenerator, adaptive=Adaptive(reference=["c"]))],
        "g.adaptive",
        "'c' has no gradient at the judged image alone",
    ),
    (
        "generator",
        [
            Term(name="p", loss=L1, role="log"),
            Term(name="g", loss=HingeGenerator, adaptive=Adaptive(reference=["p"])),
        ],
        "g.adaptive",
        "'p' is only logged",
    ),
    (
        "generator",
        [Term(name="p", loss=L1, start=5), Term(name="g", loss=HingeGenerator, adaptive=Adaptive(reference=["p"]))],
        "g.adaptive",
        "'p' starts at step 5, after this term",
    ),
    (
        "generator",
        [
            Term(name="p", loss=L1),
            Term(name="a", loss=HingeGenerator, adaptive=Adaptive(reference=["p"])),
            Term(name="b", loss=HingeGenerator, adaptive=Adaptive(reference=["a"])),
        ],
        "b.adaptive",
        "'a' has an adaptive weight itself",
    ),
    (
        "generator",
        [PIXEL, Term(name="mse", loss=L1, adaptive=Adaptive(reference=["pixel"]))],
        "mse.adaptive",
        "does not listen to the discriminator",
    ),
    (
        "generator",
        [PIXEL, Term(name="g", loss=HingeGenerator, role="log", adaptive=Adaptive(reference=["pixel"]))],
        "g.adaptive",
        "not optimised",
    ),
    (
        "generator",
        [
            PIXEL,
            Term(
                name="g",
                loss=lambda logits_fake, latent: latent,
                inputs={"latent": "bottleneck.latent"},
                adaptive=Adaptive(reference=["pixel"]),
            ),
        ],
        "g.adaptive",
        "needs other outputs",
    ),
    ("generator", [Term(name="p", loss=L1, role="log")], "", "no term is optimised"),
    ("generator", [Term(name="p", loss=L1, every=4)], "", "every term is lazy"),
    ("generator", [Term(name="p", loss=max)], "p.type", "cannot read the arguments"),
]


@pytest.mark.parametrize(
    ("phase", "terms", "place", "message"), BAD, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_mistake_is_found_with_its_place(phase: str, terms: list[Term], place: str, message: str) -> None:
    found = VQ.check(phase, terms)
    full = f"objective.{phase}" + (f".{place}" if place else "")
    assert [problem.place for problem in found] == [full], [str(problem) for problem in found]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[0].message)


def test_without_a_discriminator_nobody_can_listen_to_it() -> None:
    graph = Graph(model=Autoencoder, provides=set())
    found = messages(
        graph, "generator", PIXEL, Term(name="gan", loss=HingeGenerator, adaptive=Adaptive(reference=["pixel"]))
    )
    assert "needs a discriminator" in found["objective.generator.gan.inputs"]
    assert "needs a discriminator" in found["objective.generator.gan.adaptive"]


def test_a_model_that_nobody_can_judge_says_so() -> None:
    class Unjudged(ToyModel):
        judged = None

    graph = Graph(model=Unjudged, discriminator=True)
    found = messages(graph, "generator", Term(name="gan", loss=HingeGenerator))
    assert "this model has none" in found["objective.generator.gan.inputs"]


def test_all_problems_are_found_at_once() -> None:
    terms = [Term(name="kl", loss=KL), Term(name="pixel", loss=L1, inputs={"a": "b", "target": "c"})]
    assert len(VQ.check("generator", terms)) == 3


def test_extra_outputs_of_a_users_model_are_names() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Output:
        reconstruction: Tensor
        alpha: Tensor
        beta: Tensor | None = None

    class Mine(nn.Module):
        judged = "reconstruction"

        def training_forward(self, batch: Any) -> Output:
            raise NotImplementedError

    Mine.training_forward.__annotations__["return"] = Output
    assert {"alpha", "beta"} <= Graph(model=Mine).names("generator")
    assert {"alpha", "beta"} & Graph(model=Mine, provides=()).names("generator") == {"alpha"}
    assert {"alpha", "beta"} <= Graph(model=Mine()).names("generator")


def test_a_model_without_annotations_has_only_the_common_names() -> None:
    class Silent(nn.Module):
        judged = "images"

        def training_forward(self, batch):
            raise NotImplementedError

    assert "prediction" in Graph(model=Silent).names("generator")


def test_every_known_name_can_be_asked_for_and_no_other() -> None:
    """The names known before any tensor exists are those that a pass has."""
    model, critic = ToyModel().double(), ToyCritic().double()
    keys = {"codebooks": ["visual"], "heads": ["toy"]}
    graph = Graph(model=ToyModel, discriminator=True, keys=keys, columns=list(batch_of()))
    asked: list[Any] = []

    def ask(value: Any) -> Tensor:
        asked.append(value)
        return torch.zeros(())

    generator_names, discriminator_names = graph.names("generator"), graph.names("discriminator")
    for name in generator_names:
        GeneratorPhase(model, [Term(name="ask", loss=ask, inputs={"value": name})], discriminator=critic)(
            batch_of(), NOW
        )
    for name in discriminator_names:
        DiscriminatorPhase(critic, [Term(name="ask", loss=ask, inputs={"value": name})], model=model)(batch_of(), NOW)
    assert len(asked) == len(generator_names) + len(discriminator_names)
    phase = GeneratorPhase(model, [Term(name="ask", loss=ask, inputs={"value": "latnet"})])
    with pytest.raises(UserError, match="unknown context name 'latnet'"):
        phase(batch_of(), NOW)


def test_a_context_computes_a_value_once_and_only_when_asked() -> None:
    calls: list[int] = []
    context = Context({"a": lambda: calls.append(1) or torch.ones(2, dtype=torch.bfloat16)})
    assert not context.computed("a")
    assert context["a"].dtype == torch.float32
    assert context["a"] is context["a"]
    assert len(calls) == 1


def test_a_context_names_what_is_missing() -> None:
    output = ToyModel().double().training_forward(batch_of())
    context = Context({"batch": lambda: {"mask": 1}}, output)
    assert isinstance(context["posterior"], DiagonalGaussian)
    assert context["codebooks.visual.z"] is context["bottleneck.codebooks.visual.z"] or torch.equal(
        context["codebooks.visual.z"], context["bottleneck.codebooks.visual.z"]
    )
    for name, message in (
        ("batch.masc", "no 'masc'; did you mean 'mask'"),
        ("codebooks.visuel.z", "no 'visuel'; did you mean 'visual'"),
        ("reconstructoin", "did you mean 'reconstruction'"),
    ):
        with pytest.raises(UserError, match=message):
            context[name]
    with pytest.raises(UserError, match="empty"):
        Context({"a": lambda: None})["a"]


def test_image_space_is_decided_by_what_a_term_reads() -> None:
    judged = "reconstruction"
    assert is_image_space({"prediction", "target", "batch.mask", "logits_fake", "teacher.clip", "step"}, judged)
    assert is_image_space({"reconstruction", "discriminator", "features_real"}, judged)
    assert not is_image_space({"prediction", "posterior"}, judged)
    assert not is_image_space({"generator"}, judged)
    assert not is_image_space({"prediction"}, None)
