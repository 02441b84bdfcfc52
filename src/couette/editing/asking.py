"""One denoiser asked for several things at once: all in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Prediction

Map = Callable[[Tensor], Tensor]


def together(
    denoise: Denoise,
    x: Sequence[Tensor],
    t: Tensor,
    cond: Cond,
    asked: Sequence[Cond],
    looks: Sequence[Map] = (),
) -> list[Prediction]:
    """Answers for several x, each told something else, from one batch.

    Args:
        denoise: the denoiser.
        x: N of (B, C, H, W).
        t: 0-d or (B,).
        cond: what the run is told, (B, …) each; kept where `asked` says nothing.
        asked: N times what to tell instead, a row for all pictures.
        looks: how each x was looked at, for the prediction that `cond` recalls.
    """
    count, rows = len(x), len(x[0])
    told = {}
    for key, value in cond.items():
        if key in asked[0]:
            told[key] = torch.cat([each[key].expand(rows, *value.shape[1:]) for each in asked])
        elif looks and key == "x0":
            told[key] = torch.cat([look(value) for look in looks])
        else:
            told[key] = torch.cat([value] * count)
    p = denoise(torch.cat(list(x)), t.repeat(count) if t.ndim else t, told)
    parts = [[None] * count if part is None else part.chunk(count) for part in p]
    return [Prediction(*each) for each in zip(*parts, strict=True)]


def combined(
    answers: Sequence[Prediction],
    rule: Callable[[Sequence[Tensor]], Tensor],
    mean: Callable[[Sequence[Tensor]], Tensor],
) -> Prediction:
    """One answer of several: x0 and its base by the rule, learned variances by `mean`."""
    base = mix = None
    if answers[0].base is not None:
        base = rule([each.base for each in answers if each.base is not None])
    if answers[0].mix is not None:
        mix = mean([each.mix for each in answers if each.mix is not None])
    return Prediction(rule([each.x0 for each in answers]), base, mix)
