"""Evaluations that share what the lower levels of a network gave."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Network, Prediction
from couette.errors import InputError


class Reusing:
    """A denoiser for one run of a sampler whose network computes its lower levels now and then.

    Along a run coarse features change slowly, so those of one evaluation serve the next ones, too
    (Ma et al. 2024, "DeepCache", arXiv 2312.00858, sec. 3.2). Pictures come out slightly different.

    Args:
        denoise: what evaluates the network.
        network: one that says how it is reused: `reusing(every)`, see `networks.unet`.
        every: evaluations that share them, at least 2.

    Raises:
        InputError: a network that has no lower levels, or can't keep what they gave.
    """

    def __init__(self, denoise: Denoise, network: Network, every: int) -> None:
        kept: AbstractContextManager[None] | None = getattr(network, "reusing", _never)(every)
        if kept is None:
            raise InputError(
                "This model's network has no lower levels whose features could be used again; "
                "leave out --reuse."
            )
        self.denoise, self._kept = denoise, kept

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        # Only while it is evaluated: whoever pulls the run may use the network in between.
        with self._kept:
            return self.denoise(x, t, cond)


def _never(every: int) -> None:
    """Of a network that knows nothing of it."""
