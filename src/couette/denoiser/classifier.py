"""A classifier that reads noised pictures, whatever its network makes of the time."""

from __future__ import annotations

from torch import Tensor

from couette.contracts import Corruption
from couette.denoiser.build import Denoiser


class NoisyClassifier:
    """log p(y | x_t) of K classes (Dhariwal & Nichol 2021, sec. 4).

    Args:
        reader: the network with what it is told; its output is logits, (B, K), not a picture.
    """

    def __init__(self, reader: Denoiser) -> None:
        self.reader = reader

    @property
    def corruption(self) -> Corruption:
        return self.reader.corruption

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, K) for x (B, C, H, W) at the time t, 0-d or (B,)."""
        level = self.corruption.schedule.level(t)
        logits, _ = self.reader.raw(x, t, level, self.reader.parameterization(level), {})
        return logits

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(y | x_t), (B, K)."""
        return self.logits(x, t).log_softmax(1)
