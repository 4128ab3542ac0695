"""Config: YAML -> validated objects, from constructor signatures. Importing it costs no torch.

>>> from smalti.config import build, config_of, load
"""

from smalti.config.bounded import dump, read_json, read_text
from smalti.config.document import Document, load, override, read_yaml
from smalti.config.problems import ConfigError, Problem
from smalti.config.schema import Spec, Validator, build, config_of, plain
from smalti.config.trust import require_registered

__all__ = [
    "ConfigError",
    "Document",
    "Problem",
    "Spec",
    "Validator",
    "build",
    "config_of",
    "dump",
    "load",
    "override",
    "plain",
    "read_json",
    "read_text",
    "read_yaml",
    "require_registered",
]
