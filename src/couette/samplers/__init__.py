"""Samplers: plain generators that know nothing but a denoiser. A family a file.

A new one is one function, decorated with `@SAMPLERS.register("name")`, in a file imported here.
"""

from couette.registry import SAMPLERS
from couette.samplers.ancestral import ddpm
from couette.samplers.first_order import ddim, euler, mix
from couette.samplers.heun import heun
from couette.samplers.moves import Stretch, move, posterior, stretches

__all__ = [
    "SAMPLERS",
    "Stretch",
    "ddim",
    "ddpm",
    "euler",
    "heun",
    "mix",
    "move",
    "posterior",
    "stretches",
]
