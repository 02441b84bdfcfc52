"""How good a model is: distances to real pictures with their floor, accuracy, losses, copies.

measure.py      `evaluate`: the order of it all
judge.py        held-out pictures, their floor, and verdicts on samples
features.py     the space that distances are measured in
distances.py    Fréchet, kernel and sliced Wasserstein distances
levels.py       the loss by noise level
likelihood.py   the variational bound, and the likelihood by the probability-flow ODE
bits.py         both of a model's data, in bits per dimension
neighbours.py   nearest training pictures, and the rule for copies
report.py       what was found, as lines and as JSON
figures.py      the figures, and `write`
"""

from couette.evaluation.figures import write
from couette.evaluation.likelihood import axes, log_likelihood, signs, variational_bound
from couette.evaluation.measure import default_count, evaluate
from couette.evaluation.report import Ahead, Part, Report

__all__ = [
    "Ahead",
    "Part",
    "Report",
    "axes",
    "default_count",
    "evaluate",
    "log_likelihood",
    "signs",
    "variational_bound",
    "write",
]
