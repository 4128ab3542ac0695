"""A registered tile, found by its file name."""

from tests.config.parts import Tile


class Stone(Tile):
    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight
