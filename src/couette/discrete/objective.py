"""What training minimises for states: the variational bound, exactly."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from couette.config import DiffusionConfig
from couette.contracts import Batch, Cond, Level, Losses
from couette.denoiser import Denoiser
from couette.discrete.kinds import KINDS, cross_entropy, drawn, step_bound
from couette.schedules import Mixture, entries, log_snr
from couette.tensors import Stream, expand, mean_flat, sent, uniform
from couette.training import DiffusionObjective


class CategoricalObjective(DiffusionObjective):
    """The bound on −log p(x_0) at random times, in nats per position, plus λ·cross-entropy.

    Along a table of T entries it is T times the KL divergence of one step (Austin et al. 2021,
    eq. 1); without a table its limit, the bound in continuous time. With times drawn uniformly
    its mean is the bound itself, up to what the start of sampling adds.

    Draws, and arguments, as for `DiffusionObjective`; `config.cross_entropy` is λ.
    """

    def __init__(self, denoiser: Denoiser, config: DiffusionConfig, untold: Cond, seed: int):
        super().__init__(denoiser, config, untold, seed)
        self.kind = KINDS[denoiser.corruption.noise]
        self.cross_entropy = config.cross_entropy

    def _refuse_contradictions(self) -> None:
        """A state is told from its logits at any time; no parameterization is singular."""

    def at(self, batch: Batch, t: Tensor) -> Losses:
        """Losses at times (B,) float64; log-SNR, cross-entropy ("error") and the bound in bits
        per position ("bits") to log."""
        x0 = batch.data
        level = self.denoiser.corruption.schedule.level(t)
        keys = sent(batch.keys, x0.device)
        u = uniform(self.seed, keys, Stream.NOISE, (1, *x0.shape[2:]))
        x = drawn(self.kind.after(x0, _over(level, x0)), u)
        x = x.contiguous(memory_format=torch.channels_last)
        log_p = self.denoiser(x, t, self._hidden(batch)).x0.log_softmax(1)
        bound = mean_flat(self._bound(x, x0, log_p, t, level)).float()
        error = mean_flat(self.kind.unknown(x) * cross_entropy(x0, log_p))
        logs = {
            "log_snr": log_snr(level),
            "error": error.detach(),
            "bits": bound.detach() / math.log(2),
        }
        return Losses(bound + self.cross_entropy * error, logs)

    def _bound(self, x: Tensor, x0: Tensor, log_p: Tensor, t: Tensor, level: Level) -> Tensor:
        """Nats per position and unit of time, (B, 1, ...)."""
        schedule = cast(Mixture, self.denoiser.corruption.schedule)
        steps = entries(schedule)
        if steps is None:
            fall = expand(schedule.fall(t), x)
            return self.kind.rate_bound(x, x0, log_p, _over(level, x), fall)
        # Both distributions are nearly one state: float32 would round the divergence away.
        x, x0, log_p = x.double(), x0.double(), log_p.double()
        before = schedule.level(t - 1 / steps)
        return steps * step_bound(self.kind, x, x0, log_p, _over(level, x), _over(before, x))


def objective_for(
    denoiser: Denoiser, config: DiffusionConfig, untold: Cond, seed: int
) -> DiffusionObjective:
    """The objective that a corruption calls for."""
    states = config.noise in KINDS
    return (CategoricalObjective if states else DiffusionObjective)(denoiser, config, untold, seed)


def _over(level: Level, like: Tensor) -> Level:
    return Level(expand(level.alpha, like), expand(level.sigma, like))
