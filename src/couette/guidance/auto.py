"""A good model against a worse one of itself."""

from __future__ import annotations

from torch import Tensor

from couette.contracts import Cond, Denoise
from couette.denoiser import unread
from couette.guidance.contrast import Contrast, Guided, Terms
from couette.registry import GUIDANCE


class Autoguided(Guided):
    """What a model says beside what a worse one says, told the same.

    Args:
        denoise: the denoiser to guide.
        scale: of the guidance.
        guide: the worse denoiser, of the same corruption.
    """

    def __init__(self, denoise: Denoise, scale: float, guide: Denoise) -> None:
        super().__init__(denoise)
        self.scale, self.guide = scale, guide

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        good = self.denoise(x, t, cond)
        return Contrast(good.x0, self.guide(x, t, unread(cond)).x0, self.scale, mix=good.mix)


@GUIDANCE.register("auto")
def auto(denoise: Denoise, terms: Terms, *, run: str) -> Denoise:
    """Autoguidance: away from a worse version of the same model (Karras et al. 2024).

    x0_g + scale·(x0 − x0_g), where the guide is a smaller or less trained model: an early
    checkpoint, or a short run of the same pictures and schedule. `run` is its path. When to use
    it: for quality without loss of variety; it needs no labels.

    Raises:
        InputError: a guide of other pictures or another corruption.
    """
    return denoise if terms.scale == 1 else Autoguided(denoise, terms.scale, terms.denoiser(run))
