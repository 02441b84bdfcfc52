"""Times drawn as often as their losses are large, without bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEMORY = 10
"""The losses that are remembered of each bin."""

_UNIFORM = 1e-3
"""The share of draws that stays uniform, so that no bin is ever forgotten."""


class Importance(nn.Module):
    """Importance sampling by the loss's second moment (Nichol & Dhariwal 2021, sec. 3.3, eq. 18).

    Works on u in (0, 1), from which times are made: its bins are equal shares of whatever
    distribution the times have, one for each entry of a table where the numbers agree. A bin is
    drawn in proportion to the root mean square of its last losses, and its losses are divided by
    that. Until each bin has a full memory, all are drawn alike.

    What is drawn changes only between optimizer steps, so a step may be taken in parts. All of it
    is kept in buffers.

    Args:
        bins: how many.
    """

    losses: Tensor
    seen: Tensor
    edges: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("losses", torch.zeros(bins, MEMORY, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(bins, dtype=torch.int64))
        self.register_buffer("edges", torch.linspace(0, 1, bins + 1, dtype=torch.float64))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Carry uniform u, (B,) float64, to u' that is dense where losses are large.

        Returns:
            u' (B,); its bin (B,); the factor (B,) by which a loss at u' counts to leave the mean as
            it was.
        """
        index = torch.searchsorted(self.edges, u, right=True).sub(1).clamp(0, self.bins - 1)
        below, width = self.edges[index], self.edges.diff()[index]
        return (index + (u - below) / width) / self.bins, index, 1 / (self.bins * width)

    @torch.no_grad()
    def record(self, index: Tensor, losses: Tensor) -> None:
        """Remember losses of these bins, (B,) each, in the order of the batch."""
        same = index[:, None] == index
        later, earlier = same.triu(1).sum(1), same.tril(-1).sum(1)
        kept = later < MEMORY
        place = (self.seen[index] + earlier) % MEMORY
        self.losses[index[kept], place[kept]] = losses.detach().to(self.losses)[kept]
        self.seen += torch.bincount(index, minlength=self.bins)

    @torch.no_grad()
    def update(self) -> None:
        """Fit what is drawn to what is remembered."""
        if bool((self.seen >= MEMORY).all()):
            size = self.losses.square().mean(1).sqrt()
            share = (1 - _UNIFORM) * size / size.sum() + _UNIFORM / self.bins
            self.edges[1:-1] = share.cumsum(0)[:-1]
