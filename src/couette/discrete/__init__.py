"""Diffusion of states: pixels of few levels, characters, anything that is one of K.

    kinds.py       absorbing and multinomial: forward, exact posterior, bound, as closed forms
    rates.py       the same chain as matrices: transitions, rates, rates of the way back
    sampling.py    samplers of states
    objective.py   what training minimises
    likelihood.py  data in bits
    text.py        lines of text as states

States are one-hot along the channels, [MASK] is the vector of zeros, and the corruption's
schedule is a `Mixture`: everything else (networks, times, grids, guidance, training) is shared
with the Gaussian family. A denoiser answers with logits of p(x_0 | x_t).
"""

from couette.discrete.kinds import (
    KINDS,
    Absorbing,
    Kind,
    Multinomial,
    Odds,
    between,
    drawn,
    step_bound,
)
from couette.discrete.likelihood import bits
from couette.discrete.objective import CategoricalObjective, objective_for
from couette.discrete.rates import rates, reverse_rates, transitions
from couette.discrete.sampling import categorical, maskgit
from couette.discrete.text import Characters

__all__ = [
    "KINDS",
    "Absorbing",
    "CategoricalObjective",
    "Characters",
    "Kind",
    "Multinomial",
    "Odds",
    "between",
    "bits",
    "categorical",
    "drawn",
    "maskgit",
    "objective_for",
    "rates",
    "reverse_rates",
    "step_bound",
    "transitions",
]
