"""Samplers: plain generators that know nothing but a denoiser. A family a file.

A new one is one function, decorated with `@SAMPLERS.register("name", …)`, in a file imported here.
It declares of itself, and the tests measure:

- `order`: of its global error on the probability-flow ODE, start-up steps included; left out by
  those that draw noise or choose their own steps.
- `evaluations`: of the denoiser, for one step more (1 where it says nothing; None where it varies).
- `adaptive`: it chooses its own steps, for the whole batch at once.
- `inverse`: it climbs from pictures to noise, over rising times.
- `noise`: it draws normal noise, as its settings stand.
- `mix`: it may be used on noise that is uniform, not normal.
"""

from couette.registry import SAMPLERS
from couette.samplers.adams import deis, ipndm, lms, plms, pndm
from couette.samplers.adaptive import bosh3, dopri5
from couette.samplers.ancestral import ddpm
from couette.samplers.dpm import dpm2, dpmpp_2m, dpmpp_2s, dpmpp_3m
from couette.samplers.first_order import ddim, ddim_inverse, euler, mix
from couette.samplers.moves import Stretch, move, posterior, stretches
from couette.samplers.runge_kutta import heun, midpoint, rk4
from couette.samplers.unipc import unipc

__all__ = [
    "SAMPLERS",
    "Stretch",
    "bosh3",
    "ddim",
    "ddim_inverse",
    "ddpm",
    "deis",
    "dopri5",
    "dpm2",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_3m",
    "euler",
    "heun",
    "ipndm",
    "lms",
    "midpoint",
    "mix",
    "move",
    "plms",
    "pndm",
    "posterior",
    "rk4",
    "stretches",
    "unipc",
]
