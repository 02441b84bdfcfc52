"""Worlds whose true denoiser is known: what every method here is proven against.

    world = Mixture(Flow(), means, std=0.2)
    world(x, t, {}).x0          # E[x0 | x_t], exactly
    world.log_density(x, t)     # log p(x_t), and its gradient: world.score(x, t)

known.py      what they have in common
mixture.py    Gaussian mixtures, in the plane or as pictures
empirical.py  the ideal denoiser of a finite set of pictures: the exact memoriser
worlds.py     worlds by name, as `couette sample exact:digits`
"""

from couette.exact.empirical import Empirical
from couette.exact.known import Answer, Ideal, Known
from couette.exact.mixture import Drawn, Mixture, fitted
from couette.exact.worlds import WORLDS, World, folder_of, is_exact, named, with_schedule

__all__ = [
    "WORLDS",
    "Answer",
    "Drawn",
    "Empirical",
    "Ideal",
    "Known",
    "Mixture",
    "World",
    "fitted",
    "folder_of",
    "is_exact",
    "named",
    "with_schedule",
]
