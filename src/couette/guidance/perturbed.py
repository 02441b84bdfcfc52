"""A network against itself without its self-attention."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise
from couette.guidance.contrast import Contrast, Guided, Terms, twice
from couette.registry import GUIDANCE


class Perturbed(Guided):
    """What a network says beside what it says with identity for every map of attention.

    Args:
        denoise: the denoiser to guide; its network is told "perturb", (B,) bool.
        scale: of the guidance.
    """

    def __init__(self, denoise: Denoise, scale: float) -> None:
        super().__init__(denoise)
        self.scale = scale

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        whole = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        good, bad = twice(
            self.denoise, x, t, {**cond, "perturb": whole}, {**cond, "perturb": ~whole}
        )
        return Contrast(good.x0, bad.x0, self.scale, mix=good.mix)


@GUIDANCE.register("perturbed", tells="perturb")
def perturbed(denoise: Denoise, terms: Terms) -> Denoise:
    """Perturbed-attention guidance: away from itself blinded (Ahn et al. 2024).

    x0_p + scale·(x0 − x0_p), where every map of self-attention is the identity in the pass for
    x0_p. The paper's scale s is this scale − 1. When to use it: on models without labels, or where
    shapes fall apart; the network needs self-attention.
    """
    return denoise if terms.scale == 1 else Perturbed(denoise, terms.scale)
