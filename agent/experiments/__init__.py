"""Asks the questions a diagnosis wants answered: within a budget, within bounds, and on no account as outcomes."""

from agent.experiments.budget import Budget
from agent.experiments.experimenter import Experimenter
from agent.experiments.pod import read_pod

__all__ = ["Budget", "Experimenter", "read_pod"]
