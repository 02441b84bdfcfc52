"""What is done to each prediction at the very end, to keep it in the range of pictures."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.registry import THRESHOLDS


@THRESHOLDS.register("none")
def none(x0: Tensor, low: float, high: float) -> Tensor:
    """The prediction as it is.

    When to use it: on latents and points, which have no range.
    """
    return x0


@THRESHOLDS.register("static")
def static(x0: Tensor, low: float, high: float) -> Tensor:
    """Each value clamped to the pictures' range.

    clamp(x0, low, high) (Saharia et al. 2022, sec. 2.3). When to use it: first, on pixels.
    """
    return x0.clamp(low, high)


@THRESHOLDS.register("dynamic")
def dynamic(
    x0: Tensor,
    low: float,
    high: float,
    *,
    percentile: Annotated[float, Field(gt=0, le=1)] = 0.995,
    most: Annotated[float | None, Field(ge=1)] = None,
) -> Tensor:
    """Clamped at a percentile of each picture, then shrunk (Saharia et al. 2022, sec. 2.3).

    With pictures in [−1, 1]: clamp(x0, −s, s)/s, where s is that percentile of |x0|, at least 1
    and, where given, at most `most` (1.5 in DeepFloyd IF). When to use it: with strong guidance of
    pixels, where clamping alone saturates.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    centred = (x0 - middle) / half
    sizes = centred.abs().flatten(1).float()
    # A picture at a time: torch.quantile takes no more than 16 million values.
    limits = torch.stack([each.quantile(percentile) for each in sizes])
    limits = limits.clamp(min=1, max=most)
    limit = limits.to(x0).reshape(-1, *[1] * (x0.ndim - 1))
    return centred.clamp(-limit, limit) / limit * half + middle
