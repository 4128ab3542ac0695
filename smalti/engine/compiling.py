"""Parts of a model that are compiled, by name."""

from collections.abc import Sequence

from torch import nn

from smalti.registry import UserError, suggest


def compile_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Compiles submodules of a model in place; they keep their names and their state.

    Args:
        model: whose parts they are.
        names: dotted names of submodules.

    Raises:
        UserError: for a name that the model does not have.
    """
    for name in names:
        try:
            model.get_submodule(name).compile()
        except AttributeError as error:
            known = [place for place, _ in model.named_modules() if place]
            raise UserError(f"engine.compile: the model has no part {name!r}{suggest(name, known)}") from error
