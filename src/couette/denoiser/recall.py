"""Self-conditioning at sampling: each prediction is told to the next."""

from __future__ import annotations

from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Network, Prediction


class Recall:
    """A denoiser that hands its last prediction on as cond "x0" (Chen et al. 2023, alg. 2).

    It remembers: one object serves one run of a sampler.
    """

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self._last: dict[str, Tensor] = {}

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        p = self.denoise(x, t, {**cond, **self._last})
        self._last = {"x0": p.x0.detach()}
        return p


def recalling(denoise: Denoise, network: Network) -> Denoise:
    """The denoiser for one run of a sampler, told its last prediction if its network reads it."""
    return Recall(denoise) if "x0" in network.wants else denoise
