"""Samplers: plain generators that know nothing but a denoiser. A family a file.

A new one is one function, decorated with `@SAMPLERS.register("name", …)`, in a file imported here.
It declares of itself, and the tests measure:

- `order`: of its global error on the probability-flow ODE, start-up steps included; left out by
  those that draw noise.
- `evaluations`: of the denoiser, per step (1 where it says nothing; None where it varies).
- `noise`: it draws normal noise, as its settings stand.
- `mix`: it may be used on noise that is uniform, not normal.
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
