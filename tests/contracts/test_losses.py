"""What every registered loss keeps, found in its folder, without a table: shapes, reductions, gradients, words."""

import functools
import importlib
import inspect
import math
import re
import typing

import pytest
import torch
from torch import Tensor

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.losses import Loss
from smalti.outputs import LossValue
from smalti.registry import arguments_of, names, short_name
from tests.contracts.examples import BATCH, inputs_of, leaves, options_of, registered, replace_leaf, value_of
from tests.contracts.fresh import Fresh

# The fields of a term; its options stand beside them in the same mapping.
RESERVED = {"type", "inputs", "weight", "start", "ramp", "shape", "adaptive", "every", "lazy_scale", "merge", "role"}
LOSSES = [pytest.param(cls, id=f"{short_name(cls)}-{cls.__name__}") for cls in registered(Loss)]
every_loss = pytest.mark.parametrize("cls", LOSSES)


def make(cls, **options):
    return cls(**options_of(cls), **options).double()


@pytest.fixture(autouse=True)
def equal_draws(monkeypatch):
    """Losses that draw draw the same at each call, as under the keyed randomness of the engine."""
    call = Loss.__call__

    def seeded(self, *args, **kwargs):
        torch.manual_seed(0)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Loss, "__call__", seeded)


def total(value):
    return value.total if isinstance(value, LossValue) else value


def choices(cls, option):
    """The values a ``Literal`` option of the constructor may have; none without that option."""
    annotation = typing.get_type_hints(cls.__init__, include_extras=True).get(option)
    return typing.get_args(annotation)


def functions_of(cls):
    """The public functions defined in a loss's file, the one of the file's (or the player's) name first."""
    own = short_name(cls) if cls.phase is None else f"{short_name(cls)}_{cls.phase}"
    found = [
        value
        for value in vars(importlib.import_module(cls.__module__)).values()
        if inspect.isfunction(value) and value.__module__ == cls.__module__ and not value.__name__.startswith("_")
    ]
    assert found, "no function that holds the formula"
    return sorted(found, key=lambda function: function.__name__ != own)


def losses_with(predicate):
    return pytest.mark.parametrize("cls", [case for case in LOSSES if predicate(case.values[0])])


def shifted(inputs, **by):
    """The inputs with some tensors moved by a number; new leaves."""
    return inputs | {name: (inputs[name] + number).detach().requires_grad_() for name, number in by.items()}


def has_input(*wanted):
    return lambda cls: set(wanted) <= set(inspect.signature(cls.forward).parameters)


@every_loss
def test_is_a_scalar_and_keeps_the_dtype(cls):
    for dtype in (torch.float32, torch.float64):
        value = total(make(cls).to(dtype)(**inputs_of(cls.forward, dtype)))
        assert value.shape == ()
        assert value.dtype == dtype
        assert torch.isfinite(value)


@every_loss
def test_parts_are_detached_scalars(cls):
    value = make(cls)(**inputs_of(cls.forward))
    if isinstance(value, LossValue):
        assert value.parts
        for part in value.parts.values():
            assert part.shape == ()
            assert not part.requires_grad


@every_loss
def test_gradient_of_each_input_is_numeric_or_stopped(cls):
    loss, inputs = make(cls), inputs_of(cls.forward)
    given = list(leaves(inputs))
    gradients = torch.autograd.grad(total(loss(**inputs)), given, allow_unused=True)
    moving = [leaf for leaf, gradient in zip(given, gradients, strict=True) if gradient is not None and gradient.any()]
    assert moving, "no input gets a gradient"
    for leaf in moving:

        def value(changed, leaf=leaf):
            return total(loss(**replace_leaf(inputs, leaf, changed)))

        assert torch.autograd.gradcheck(value, (leaf.detach().requires_grad_(),), fast_mode=True, atol=1e-5)


@every_loss
def test_changes_neither_inputs_nor_state_and_repeats(cls):
    loss, inputs = make(cls), inputs_of(cls.forward)
    inputs_before = [leaf.detach().clone() for leaf in leaves(inputs)]
    state_before = {key: value.clone() for key, value in loss.state_dict().items()}
    first, second = total(loss(**inputs)), total(loss(**inputs))
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(inputs_before, leaves(inputs), strict=True))
    assert all(torch.equal(value, state_before[key]) for key, value in loss.state_dict().items())


@every_loss
def test_no_number_of_python_is_copied_to_the_device_at_a_second_step(cls):
    loss, inputs = make(cls), inputs_of(cls.forward)
    total(loss(**inputs)).backward()
    with Fresh() as fresh:
        total(loss(**inputs)).backward()
    assert fresh.count == ("text" in inputs) * 2, "texts are words of the host: their numbers and their lengths"


@losses_with(lambda cls: "none" in choices(cls, "reduction"))
def test_reductions_agree_with_the_unreduced_values(cls):
    inputs = inputs_of(cls.forward)
    values = {name: total(make(cls, reduction=name)(**inputs)) for name in choices(cls, "reduction")}
    unreduced = values.pop("none")
    assert unreduced.shape[0] == BATCH
    torch.testing.assert_close(values["sum"], unreduced.sum())
    torch.testing.assert_close(values["batch_sum"], unreduced.sum() / BATCH)
    # mean divides by the number of elements; "none" may already hold sums of several.
    elements = (values["sum"] / values["mean"]).item() / unreduced.numel()
    assert elements == pytest.approx(round(elements))
    assert elements > 0.5


@losses_with(lambda cls: choices(cls, "reduction") and "none" not in choices(cls, "reduction"))
def test_every_reduction_is_a_finite_scalar(cls):
    for name in choices(cls, "reduction"):
        value = total(make(cls, reduction=name)(**inputs_of(cls.forward)))
        assert value.shape == ()
        assert torch.isfinite(value)


@losses_with(lambda cls: choices(cls, "reduction"))
def test_unknown_reduction_is_a_clear_error(cls):
    with pytest.raises(ValueError, match=r"reduction='avg': expected '"):
        make(cls, reduction="avg")


@losses_with(has_input("weight", "prediction"))
def test_weight_of_ones_changes_nothing_and_a_wrong_one_is_an_error(cls):
    loss, inputs = make(cls), inputs_of(cls.forward)
    plain = total(loss(**inputs))
    for shape in ((BATCH,), (BATCH, 1, 1, 1)):
        torch.testing.assert_close(total(loss(**inputs, weight=torch.ones(shape))), plain)
    for shape in ((BATCH + 1,), (16, 16), (1, 3, 16, 16)):
        with pytest.raises(ValueError, match="weight with shape"):
            loss(**inputs, weight=torch.ones(shape))


@losses_with(has_input("prediction", "target"))
def test_least_where_prediction_equals_target(cls):
    loss, inputs = make(cls), inputs_of(cls.forward)
    target = inputs["target"].detach()
    equal = target.clone().requires_grad_()
    least = total(loss(**{**inputs, "prediction": equal, "target": target}))
    assert least <= total(loss(**{**inputs, "target": target}))
    (gradient,) = torch.autograd.grad(least, [equal])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0.0)


@losses_with(has_input("prediction", "target"))
def test_prediction_and_target_of_unequal_shapes_are_an_error(cls):
    inputs = inputs_of(cls.forward)
    with pytest.raises(ValueError, match="shape"):
        make(cls)(**{**inputs, "target": inputs["target"][:1]})


@losses_with(lambda cls: getattr(cls, "input_range", None) is not None)
def test_target_outside_the_declared_range_is_an_error(cls):
    inputs = inputs_of(cls.forward)
    low, high = cls.input_range
    bytes_ = (127.5 * (inputs["target"].detach() + 1.0)).round()
    function = functions_of(cls)[0]
    options = {**options_of(cls), **arguments_of(make(cls))}
    options = {name: value for name, value in options.items() if name in inspect.signature(function).parameters}
    for wrong in (bytes_, bytes_.to(torch.uint8), inputs["target"] * math.inf):
        for measure in (make(cls), functools.partial(function, **options)):
            with pytest.raises(ValueError, match=rf"target .*images in \[{low:g}, {high:g}\]"):
                measure(**{**inputs, "target": wrong})
    assert torch.isfinite(total(make(cls)(**{**inputs, "prediction": 1.5 * inputs["prediction"]})))


@losses_with(lambda cls: cls.phase == "generator" and has_input("logits_fake")(cls))
def test_generator_pushes_logits_of_fakes_up(cls):
    inputs = shifted(inputs_of(cls.forward), logits_fake=-3.0)  # found out; some losses are content with the others
    (gradient,) = torch.autograd.grad(make(cls)(**inputs), [inputs["logits_fake"]])
    assert (gradient < 0.0).all()


@losses_with(lambda cls: cls.phase == "discriminator" and has_input("logits_real", "logits_fake")(cls))
def test_discriminator_pushes_reals_up_and_fakes_down(cls):
    inputs = shifted(inputs_of(cls.forward), logits_real=-3.0, logits_fake=3.0)  # as long as it is mistaken
    up, down = torch.autograd.grad(make(cls)(**inputs), [inputs["logits_real"], inputs["logits_fake"]])
    assert (up < 0.0).all()
    assert (down > 0.0).all()


# The class does more than its function, which takes other arguments: tested by itself, beside the loss.
MORE_THAN_THEIR_FUNCTION = {
    "categorical_kl", "codebook", "commitment", "disentangle", "entropy",  # over the records of all codebooks
    "lecam", "path_length", "began/discriminator",  # keep state
    "ms_ssim", "psnr", "ssim",  # the function is the measure, the class a loss that falls as it rises
    "consistency",  # draws the copy
    "scaled_nll",  # owns the scale
}  # fmt: skip


@losses_with(
    lambda cls: not {short_name(cls), f"{short_name(cls)}/{cls.phase}"} & MORE_THAN_THEIR_FUNCTION,
)
def test_class_equals_its_function(cls):
    function, loss, inputs = functions_of(cls)[0], make(cls), inputs_of(cls.forward)
    options = {**options_of(cls), **arguments_of(loss)}
    torch.manual_seed(0)
    torch.testing.assert_close(total(function(**inputs, **options)), total(loss(**inputs)))


@every_loss
def test_build_of_config_rebuilds_it(cls):
    loss = make(cls)
    rebuilt = build(config_of(loss), Loss, phase=cls.phase)
    assert type(rebuilt) is cls
    assert config_of(rebuilt) == config_of(loss)
    inputs = inputs_of(cls.forward)
    torch.testing.assert_close(total(rebuilt.double()(**inputs)), total(loss(**inputs)))


@every_loss
def test_is_built_on_the_meta_device_without_files(cls):
    with torch.device("meta"):
        assert isinstance(cls(**{key: value for key, value in options_of(cls).items() if key != "extractor"}), Loss)


@every_loss
def test_options_have_types_and_no_reserved_name(cls):
    parameters = option_parameters(cls)
    assert not (RESERVED | {"options"}) & set(parameters)
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())


@every_loss
def test_docstring_has_formula_shapes_source_and_options(cls):
    text = "\n".join([cls.__doc__, cls.forward.__doc__, *(function.__doc__ for function in functions_of(cls))])
    assert re.search(r"shape|\(B\b", text), "no tensor shape"
    assert re.search(r"=|\^|sqrt|log|mean\(", text), "no formula"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|et al\.", text), "no source"
    for option in option_parameters(cls):
        assert re.search(rf"^\s+{option}: ", cls.__doc__, re.MULTILINE), f"option {option} is not described"


@every_loss
def test_has_a_doctest(cls):
    module = importlib.import_module(cls.__module__)
    documented = [value.__doc__ or "" for value in vars(module).values() if inspect.isfunction(value)]
    assert any(">>>" in text for text in [cls.__doc__, module.__doc__ or "", *documented])


def test_all_adversarial_pairs_have_two_players():
    pairs: dict[str, set[str]] = {}
    for cls in registered(Loss):
        if cls.phase is not None:
            pairs.setdefault(short_name(cls), set()).add(cls.phase)
    assert pairs
    assert all(players == {"generator", "discriminator"} for players in pairs.values())


def test_losses_of_this_issue_are_found():
    wanted = {"l1", "mse", "charbonnier", "lpips", "kl", "scaled_nll", "codebook", "commitment", "entropy"}
    assert wanted | {"hinge", "vanilla", "non_saturating", "lsgan", "wgan"} <= set(names(Loss))


def test_unknown_input_names_have_no_example():
    with pytest.raises(KeyError):
        value_of("surprise")


def test_leaves_reach_into_records():
    assert len(list(leaves(value_of("codebooks")))) == 8
    assert all(isinstance(leaf, Tensor) for leaf in leaves(value_of("posterior")))
