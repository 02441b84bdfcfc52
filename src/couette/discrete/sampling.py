"""Samplers of states: plain generators of Steps, like those of `couette.samplers`.

They declare the trait `states`. The denoiser answers with logits, so that guidance, which mixes
answers linearly, works on logits; x0 of a Step holds probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Step
from couette.discrete.kinds import KINDS, Absorbing, Kind, Odds, drawn
from couette.errors import InputError
from couette.registry import SAMPLERS
from couette.samplers import stretches

Temperature = Annotated[float, Field(gt=0)]


@SAMPLERS.register("categorical", states=True, known_as=("DiscreteDDIMScheduler",))
def categorical(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    temperature: Temperature = 1.0,
) -> Iterator[Step]:
    """Draws states down the reverse chain p(x_s | x_t), every position by itself.

    Austin et al. 2021, sec. 3; Sahoo et al. 2024, sec. 3.2. Each position's odds are exact for any
    stretch; that positions of one step don't know of each other is what more steps mend. p(x_s |
    x_t) = Σ q(x_s | x_t, x0)·p(x0 | x_t), the sum over x0. When to use it: first, on states.

    Args:
        temperature: divides the logits; below 1 likely states become likelier.

    Raises:
        InputError: a denoiser of pictures or points, which adds noise.
    """
    kind = kind_of(denoise, "The sampler 'categorical'")
    for i, n, t, u, a, b in stretches(denoise, times):
        p = kind.belief(x, denoise(x, t, cond).x0 / temperature)
        x = drawn(kind.back(x, p, a, b), noise(t, u))
        yield Step(i, n, u, x, p)


@SAMPLERS.register("maskgit", states=True, known_as=("AmusedScheduler",))
def maskgit(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    temperature: Temperature = 1.0,
    disorder: Annotated[float, Field(ge=0)] = 1.0,
) -> Iterator[Step]:
    """Lifts masks in the order of confidence, so many a step that a share sigma stays masked.

    Chang et al. 2022 (MaskGIT), sec. 3.2. Good pictures in few steps, but not a sample of the
    model's distribution: sure positions come first, and so do common pictures. When to use it: in 8
    to 16 steps, on masked states only.

    Args:
        temperature: divides the logits.
        disorder: Gumbel noise on the confidence, falling with sigma; 0 takes the surest always.

    Raises:
        InputError: a denoiser whose noise is not absorbing.
    """
    if not isinstance(kind := kind_of(denoise, "The sampler 'maskgit'"), Absorbing):
        raise InputError(
            "The sampler 'maskgit' lifts masks, and this model's states are never masked; use "
            "'categorical'."
        )
    for i, n, t, u, a, b in stretches(denoise, times):
        p = kind.belief(x, denoise(x, t, cond).x0 / temperature)
        draw = noise(t, u)
        guess = drawn(Odds(p, torch.zeros_like(p[:, :1])), draw)
        gumbel = -(-draw[:, 1:2].clamp(min=1e-20).log()).log()
        sure = (p * guess).sum(1, keepdim=True).log() + disorder * a.sigma * gumbel
        hidden = kind.unknown(x) > 0
        order = sure.masked_fill(~hidden, torch.inf).flatten(1).argsort(1).argsort(1)
        left = int(b.sigma * order.shape[1])
        again = hidden & (order < left).reshape(hidden.shape)
        x = guess.masked_fill(again, 0)
        yield Step(i, n, u, x, p)


def kind_of(denoise: Denoise, who: str) -> Kind:
    """How the denoiser's states are lost.

    Raises:
        InputError: it has no states.
    """
    noise = denoise.corruption.noise
    if noise not in KINDS:
        raise InputError(
            f"{who} is for states, but this model adds {noise} noise; give one that was trained "
            "with absorbing or multinomial noise."
        )
    return KINDS[noise]
