"""Objectives: named terms, their weights and inputs, and the phases that say who is trained by which terms."""

from smalti.objectives.balance import Adaptive
from smalti.objectives.graph import Graph
from smalti.objectives.phases import DiscriminatorPhase, GeneratorPhase, Phase
from smalti.objectives.report import LossReport, TermReport
from smalti.objectives.term import Term, TermOptions
from smalti.objectives.weight import Clock, Schedule

__all__ = [
    "Adaptive",
    "Clock",
    "DiscriminatorPhase",
    "GeneratorPhase",
    "Graph",
    "LossReport",
    "Phase",
    "Schedule",
    "Term",
    "TermOptions",
    "TermReport",
]
