"""Guidance: a denoiser made of denoisers. Knows nothing of samplers."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Prediction
from couette.errors import InputError


class ClassifierFree:
    """x0 = x0_u + scale·(x0_c − x0_u) (Ho & Salimans 2022, eq. 6; eps_u + λ(eps_c − eps_u)).

    Both passes run as one batch of 2·B rows. Scale 0 is the unconditional answer, 1 the
    conditional one; use `classifier_free`, which leaves the denoiser alone at 1.

    Args:
        denoise: the denoiser to guide.
        scale: the guidance scale λ.
        unconditional: what the network is told where nothing is asked: the keys of the
            conditional `cond`, with B rows each.
    """

    def __init__(self, denoise: Denoise, scale: float, unconditional: Cond) -> None:
        self.denoise = denoise
        self.scale = scale
        self.unconditional = unconditional

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        both = {key: torch.cat((cond[key], self.unconditional.get(key, cond[key]))) for key in cond}
        x0_c, x0_u = self.denoise(torch.cat((x, x)), t.repeat(2) if t.ndim else t, both).x0.chunk(2)
        return Prediction(torch.lerp(x0_u, x0_c, self.scale))


def classifier_free(denoise: Denoise, scale: float, unconditional: Cond) -> Denoise:
    """Guide a denoiser; scale 1 is off and gives it back as it is.

    Raises:
        InputError: a scale other than 1 on a model that is told nothing.
    """
    if scale == 1:
        return denoise
    if not unconditional:
        raise InputError(
            f"Guidance {scale} needs a model trained with labels; this one has none, so leave "
            "out --guidance."
        )
    return ClassifierFree(denoise, scale, unconditional)
