"""Which tokenizer turns the tokens of a model into images: kept beside its weights, and found again by its hash."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smalti.nn.hashing import hash_of
from smalti.registry import UserError, shown
from smalti.writing import to_json

FILE = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class DecodedBy:
    """The tokenizer whose tokens a model predicts.

    Args:
        name: of its class.
        path: where it was loaded from when the tokens were made.
        hash: of its weights, :func:`smalti.nn.hashing.hash_of` of its state.
        place: where it lay when the model was trained: an absolute path; None if it was no path, or nothing was there.
    """

    name: str
    path: str
    hash: str
    place: str | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> "DecodedBy":
        """What a store says of its tokenizer: ``name``, ``path`` and ``hash``."""
        there = Path(tokenizer.path).expanduser()
        place = str(there.resolve()) if there.exists() else None
        return cls(name=tokenizer.name, path=tokenizer.path, hash=tokenizer.hash, place=place)

    @classmethod
    def read(cls, folder: Path) -> "DecodedBy | None":
        """What is kept in the folder of a saved model; None if nothing is.

        Raises:
            UserError: if it is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            told: Any = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: damaged: {error}") from error
        kept = {key: value for key, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
        if not {"name", "path", "hash"} <= kept.keys():
            raise UserError(f"{path}: {shown(told)}: expected a mapping with name, path and hash of a tokenizer")
        return cls(name=kept["name"], path=kept["path"], hash=kept["hash"], place=kept.get("place"))

    def text(self) -> str:
        """What ``tokenizer.json`` holds."""
        return to_json(asdict(self)) + "\n"

    def candidates(self) -> list[str]:
        """Where it may be: as it was written if something is there, then where it lay; as written if nowhere."""
        places = [place for place in (self.path, self.place) if place is not None and os.path.exists(place)]
        return list(dict.fromkeys(places)) or [self.path]

    def check(self, tokenizer: Any, path: str) -> None:
        """Refuses another tokenizer.

        Args:
            tokenizer: the network.
            path: where it was loaded from.

        Raises:
            UserError: with both hashes.
        """
        actual = hash_of(tokenizer.state_dict())
        if actual != self.hash:
            raise UserError(
                f"{path}: another tokenizer (weights {actual[:16]}) than the one whose tokens the model predicts "
                f"({self.path}, weights {self.hash[:16]})"
            )
