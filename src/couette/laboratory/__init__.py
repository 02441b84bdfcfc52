"""The sampler lab: which solver, on which grid, in how few steps, is good enough for this model.

trials.py    what is tried, and what came of it
compare.py   a trial: from the same noise, against a fine solution and against real pictures
search.py    a grid for few steps, found by dynamic programming along a fine solution
results.py   outcomes, kept as they come, so that a stopped lab goes on
carry.py     the lab itself: what is tried in which order
figures.py   error and distance against evaluations, and the pictures
"""

from couette.laboratory.carry import carry_out, measured_on, planned, searched
from couette.laboratory.compare import Bench
from couette.laboratory.figures import write as draw_lab
from couette.laboratory.results import Results
from couette.laboratory.search import search
from couette.laboratory.trials import Outcome, Trial, trials

__all__ = [
    "Bench",
    "Outcome",
    "Results",
    "Trial",
    "carry_out",
    "draw_lab",
    "measured_on",
    "planned",
    "search",
    "searched",
    "trials",
]
