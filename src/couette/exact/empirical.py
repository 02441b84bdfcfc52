"""The ideal denoiser of a finite set of pictures, which is also the exact memoriser."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from couette.contracts import Schedule
from couette.errors import ShapeError
from couette.exact.known import TINY, Answer, Known, prior_of

_CHUNK = 1 << 22
"""Numbers of the set that are looked at together: 32 MiB in float64."""


class Empirical(Known):
    """All pictures of a set, equally likely: the minimiser of the denoising loss on that set.

    E[x0 | x_t] = softmax_i(−|x_t − α·x_i|²/(2σ²)) · x_i (Karras et al. 2022, eq. 57). Sampled from,
    it gives back its pictures and nothing else; at sigma = 0 it is the nearest one. The set is gone
    through in chunks, with a running softmax, so that its size is bounded by its own memory alone.

    Args:
        schedule: what x_t is.
        pictures: (N, C, H, W), kept in their own dtype.
        labels: (N,) the class of each; no classes when not given.

    Raises:
        ShapeError: no pictures.
        InputError: labels that leave a class empty.
    """

    labels: Tensor | None

    def __init__(
        self, schedule: Schedule, pictures: Tensor, *, labels: Tensor | None = None
    ) -> None:
        if pictures.ndim != 4 or not len(pictures):
            raise ShapeError(
                f"A set of pictures is (N, C, H, W), at least one; got {tuple(pictures.shape)}."
            )
        classes = 0 if labels is None else int(labels.max()) + 1
        weights = torch.ones(len(pictures), dtype=torch.float64)
        super().__init__(schedule, pictures.shape[1:], prior_of(weights, labels, classes))
        self.register_buffer("pictures", pictures.flatten(1).contiguous())
        self.register_buffer("labels", labels)

    def answer(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None) -> Answer:
        """|x|² is the same for all pictures, so it comes in at the end."""
        variance = sigma.square().clamp(min=TINY)
        top = x.new_full((len(x), 1), torch.finfo(x.dtype).min)
        total, mean, count = torch.zeros_like(top), torch.zeros_like(x), torch.zeros_like(top)
        for chunk, members in self._chunks(label):
            near = (alpha * (x @ chunk.T) - alpha.square() / 2 * chunk.square().sum(1)) / variance
            near = near.masked_fill(~members, -math.inf)
            peak = torch.maximum(top, near.detach().amax(1, keepdim=True))
            share, before = (near - peak).exp(), (top - peak).exp()
            total = before * total + share.sum(1, keepdim=True)
            mean = before * mean + share @ chunk
            count = count + members.sum(1, keepdim=True)
            top = peak
        x0 = mean / total
        log_density = (
            top + total.log() - count.log()
            - x.square().sum(1, keepdim=True) / (2 * variance)
            - x.shape[1] / 2 * (2 * math.pi * variance).log()
        )  # fmt: skip
        return Answer(x0, (alpha * x0 - x) / variance, log_density[:, 0])

    def _chunks(self, label: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures (n, D) in float64, and which of them are of each row's class, (B or 1, n)."""
        pictures, labels = self.get_buffer("pictures"), self.labels
        rows = max(1, _CHUNK // pictures.shape[1])
        for first in range(0, len(pictures), rows):
            chunk = pictures[first : first + rows].double()
            if label is None or labels is None:
                members = torch.ones(1, len(chunk), dtype=torch.bool, device=chunk.device)
            else:
                asked = label[:, None]
                members = (asked == labels[first : first + rows]) | (asked == self.classes)
            yield chunk, members
