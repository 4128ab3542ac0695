"""A pair: one class for each player."""

from tests.config.parts import Tile


class CoupleGenerator(Tile):
    phase = "generator"


class CoupleDiscriminator(Tile):
    phase = "discriminator"
