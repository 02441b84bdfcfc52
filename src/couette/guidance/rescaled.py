"""The guided answer at the conditional one's contrast."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Denoise
from couette.guidance.classifier_free import laid_over
from couette.guidance.contrast import Contrast, Guided, Rule, Terms
from couette.registry import GUIDANCE


class Rescaled(Rule):
    """The guided x0, its standard deviation brought `phi` of the way to the better answer's."""

    def __init__(self, guided: Guided, phi: float) -> None:
        super().__init__(guided)
        self.phi = phi

    def revised(self, contrast: Contrast, x: Tensor, t: Tensor) -> Contrast:
        x0 = contrast.prediction.x0
        found = spread(x0)
        # A picture of one value has no spread to change.
        whole = x0 * torch.where(found > 0, spread(contrast.good) / found, 1.0)
        return contrast._replace(good=torch.lerp(x0, whole, self.phi), scale=1.0)


def spread(x: Tensor) -> Tensor:
    """The standard deviation of each picture, (B, 1, 1, 1)."""
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)


@GUIDANCE.register("rescale")
def rescale(
    denoise: Denoise, terms: Terms, *, phi: Annotated[float, Field(ge=0, le=1)] = 0.7
) -> Denoise:
    """Guidance at the contrast of the conditional answer (Lin et al. 2024, sec. 3.4).

    x0·(phi·std(x0_c)/std(x0) + 1 − phi), each std over one picture. When to use it: where strong
    guidance overexposes, above all with a schedule of zero terminal SNR.
    """
    return laid_over(denoise, terms, lambda guided: Rescaled(guided, phi))
