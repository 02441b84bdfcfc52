"""The diffusion objective: corrupt, predict, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig
from couette.contracts import Batch, Corruption, Level, Losses, Objective, Scalings
from couette.denoiser import Denoiser, target
from couette.registry import OBJECTIVES, TIMES, WEIGHTINGS
from couette.schedules import log_snr, mixed
from couette.tensors import Stream, expand, mean_flat, normal, uniform


@OBJECTIVES.register("diffusion")
class DiffusionObjective(Objective):
    """The weighted squared error of the network's output at random noise levels.

    Every draw (time, noise, hidden labels) is a function of (seed, epoch, sample index), so it is
    the same at any batch size, device or world size.

    Args:
        denoiser: the denoiser whose network is trained.
        config: times, weighting, drop.
        classes: the number of classes, which stands for "none"; 0 without labels.
        seed: the run's seed.
    """

    def __init__(self, denoiser: Denoiser, config: DiffusionConfig, classes: int, seed: int):
        super().__init__()
        self.denoiser = denoiser
        self.network = cast(nn.Module, denoiser.network)
        self.times: Callable[..., Tensor] = TIMES.bind(config.times)
        self.weighting: Callable[[Level, Scalings], Tensor] = WEIGHTINGS.bind(config.weighting)
        self.drop, self.classes, self.seed = config.drop, classes, seed

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"network": list(self.network.parameters())}

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch: (B,), with log-SNR and unweighted error to log."""
        u = uniform(self.seed, batch.keys, Stream.TIME).double() + 2.0**-25
        return self.at(batch, self.times(self.denoiser.corruption.schedule, u))

    def at(self, batch: Batch, t: Tensor) -> Losses:
        """The losses at given times, (B,) float64: how held-out loss per level is measured."""
        x0 = batch.data
        level = self.denoiser.corruption.schedule.level(t)
        scalings = self.denoiser.parameterization(level)
        x, eps = corrupted(batch, t, self.denoiser.corruption, self.seed)
        output = self.denoiser.raw(x, t, level, scalings, self._hide_labels(batch))
        error = mean_flat((output - target(scalings, level, x0, eps)).square())
        weight = self.weighting(level, scalings).to(error)
        return Losses(weight * error, {"log_snr": log_snr(level), "error": error.detach()})

    def _hide_labels(self, batch: Batch) -> Mapping[str, Tensor]:
        if not self.drop or not self.training or "label" not in batch.cond:
            return batch.cond
        label = batch.cond["label"]
        hidden = uniform(self.seed, batch.keys, Stream.DROP).to(label.device) < self.drop
        return {**batch.cond, "label": torch.where(hidden, self.classes, label)}


def corrupted(batch: Batch, t: Tensor, corruption: Corruption, seed: int) -> tuple[Tensor, Tensor]:
    """A batch at the times t (B,), and its noise: a function of the seed and of `batch.keys`."""
    x0, level = batch.data, corruption.schedule.level(t)
    draw = normal if corruption.noise == "normal" else uniform
    eps = draw(seed, batch.keys.to(x0.device), Stream.NOISE, x0.shape[1:])
    eps = eps.contiguous(memory_format=torch.channels_last)
    return mixed(x0, Level(expand(level.alpha, x0), expand(level.sigma, x0)), eps), eps
