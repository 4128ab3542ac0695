"""smalti trains, measures, converts and uses image autoencoders and visual tokenizers."""

__version__ = "0.1.0"
