"""Told against untold: classifier-free guidance, and its manifold-constrained form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise
from couette.errors import InputError
from couette.guidance.contrast import Contrast, Guided, Rule, Terms, twice
from couette.registry import GUIDANCE


class ClassifierFree(Guided):
    """What the network says when it is told, beside what it says when it is not.

    Args:
        denoise: the denoiser to guide.
        terms: the scale, and what the network is told where nothing is asked.

    Raises:
        InputError: a network that never learned to do without a label, or has none.
    """

    def __init__(self, denoise: Denoise, terms: Terms) -> None:
        super().__init__(denoise)
        if not terms.unconditional:
            raise InputError(
                f"Guidance {terms.scale:g} needs a model trained with labels, some of them hidden "
                "(diffusion.drop between 0 and 1), and this one was not; leave out --guidance "
                "(1 is off), or guide it with --guider auto, perturbed or classifier."
            )
        self.scale, self.unconditional = terms.scale, terms.unconditional

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        # Guidance laid over this one asks for each picture more than once.
        times = len(x) // len(next(iter(self.unconditional.values())))
        nothing = {key: torch.cat([rows] * times) for key, rows in self.unconditional.items()}
        told, untold = twice(self.denoise, x, t, cond, nothing)
        return Contrast(told.x0, untold.x0, self.scale, mix=told.mix)


@GUIDANCE.register("cfg")
def cfg(denoise: Denoise, terms: Terms) -> Denoise:
    """Classifier-free guidance: x0_u + scale·(x0_c − x0_u) (Ho & Salimans 2022, eq. 6).

    The same as eps_u + scale·(eps_c − eps_u), since eps is x0 up to signs and factors that all
    three share. When to use it: first.

    Raises:
        InputError: a model without labels, or one that never had them hidden.
    """
    return denoise if terms.scale == 1 else ClassifierFree(denoise, terms)


class Manifold(ClassifierFree):
    """Guidance of the picture, but not of the noise that is put back."""

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        found = super().contrast(x, t, cond)
        return found._replace(base=found.bad)


@GUIDANCE.register("cfg++", off=None)
def cfg_plus_plus(denoise: Denoise, terms: Terms) -> Denoise:
    """CFG++: x0 is guided, the noise put back is the unconditional's (Chung et al. 2024, alg. 2).

    x_u = alpha_u·(x0_u + λ·(x0_c − x0_u)) + sigma_u·eps_u. The scale is the paper's λ, in [0, 1]:
    0 is the unconditional answer, and 1 is strong, about what 12 is to cfg (0.6 is about 7.5). It
    is the one method that 1 does not switch off. When to use it: where cfg oversaturates.

    Raises:
        InputError: a scale outside [0, 1], or as cfg.
    """
    if not 0 <= terms.scale <= 1:
        raise InputError(
            f"The scale of cfg++ lies between 0 and 1, not at {terms.scale:g}; 0.6 is about as "
            "strong as 7.5 is with cfg."
        )
    return Manifold(denoise, terms)


def laid_over(denoise: Denoise, terms: Terms, rule: Callable[[Guided], Rule]) -> Denoise:
    """A rule over a guided denoiser; over classifier-free guidance of one that is not guided.

    Where guidance is off there is nothing to lay it over.
    """
    guided = denoise if isinstance(denoise, Guided) else cfg(denoise, terms)
    return rule(guided) if isinstance(guided, Guided) else guided
