"""What a diagnosis may know of a recipe: which term is of which loss, how long the run is, how it starts."""

from collections.abc import Mapping
from typing import Any


class Facts:
    """A resolved recipe, asked with care: what it lacks, or what is of another form, is simply not known.

    Args:
        recipe: as ``recipe.yaml`` has it; None if there is none.
    """

    def __init__(self, recipe: Mapping[str, Any] | None = None) -> None:
        self.recipe: Mapping[str, Any] = recipe or {}

    def get(self, place: str, default: Any = None) -> Any:
        """The value at a dotted place.

        >>> Facts({"engine": {"max_steps": 5}}).get("engine.max_steps"), Facts().get("engine.max_steps", 0)
        (5, 0)
        """
        value: Any = self.recipe
        for part in place.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def number(self, place: str, default: float = 0.0) -> float:
        """The number at a dotted place; ``default`` if there is none."""
        value = self.get(place)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default

    def terms(self, player: str, kind: str) -> list[str]:
        """Names of the terms of a player whose ``type`` is ``kind``, by its short name or the module of its path.

        >>> Facts({"objective": {"generator": {"a": {"type": "kl"}, "b": {"type": "l1"}}}}).terms("generator", "kl")
        ['a']
        """
        of = self.get(f"objective.{player}")
        if not isinstance(of, Mapping):
            return []
        return [
            str(name)
            for name, term in of.items()
            if isinstance(term, Mapping) and kind in {term.get("type"), *str(term.get("type")).split(".")[:-1]}
        ]

    @property
    def warmup(self) -> float:
        """Updates until the generator learns at full speed."""
        return self.number("optim.generator.warmup")

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the model starts from trained weights."""
        return self.get("model.init") is not None
