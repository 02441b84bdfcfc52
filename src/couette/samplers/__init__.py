"""Samplers: plain generators that know nothing but a denoiser. A family a file.

A new one is one function, decorated with `@SAMPLERS.register("name", …)`, in a file imported here.
It declares of itself, and the tests measure:

- `order`: of its global error on the probability-flow ODE, start-up steps included; left out by
  those that draw noise or choose their own steps.
- `evaluations`: of the denoiser, for one step more (1 where it says nothing; None where it varies).
- `adaptive`: it chooses its own steps, for the whole batch at once.
- `inverse`: it climbs from pictures to noise, over rising times.
- `noise`: it draws normal noise, as its settings stand.
- `strength`: the setting of that noise: at 0 it draws none, and has one solution.
- `weak`: of the error of its distribution on Gaussian data, where it draws noise and claims one.
- `mix`: it may be used on noise that is uniform, not normal.
- `known_as`, `variants`: its names in diffusers, k-diffusion and the web UIs, in their spelling.
"""

from couette.registry import SAMPLERS
from couette.samplers.adams import deis, ipndm, lms, plms, pndm
from couette.samplers.adaptive import bosh3, dopri5
from couette.samplers.ancestral import ddpm, dpm2_ancestral, dpmpp_2s_ancestral, euler_ancestral
from couette.samplers.churn import edm, euler_churn, restart
from couette.samplers.dpm import dpm2, dpmpp_2m, dpmpp_2s, dpmpp_3m
from couette.samplers.dpmpp_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from couette.samplers.er_sde import er_sde
from couette.samplers.first_order import ddim, ddim_inverse, euler, mix
from couette.samplers.langevin import langevin
from couette.samplers.moves import Stretch, move, posterior, stretches
from couette.samplers.noisy import draws_noise
from couette.samplers.runge_kutta import heun, midpoint, rk4
from couette.samplers.sa_solver import sa_solver
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
    "dpm2_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "draws_noise",
    "edm",
    "er_sde",
    "euler",
    "euler_ancestral",
    "euler_churn",
    "heun",
    "ipndm",
    "langevin",
    "lms",
    "midpoint",
    "mix",
    "move",
    "plms",
    "pndm",
    "posterior",
    "restart",
    "rk4",
    "sa_solver",
    "stretches",
    "unipc",
]
