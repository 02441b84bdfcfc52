"""The diffusion objective: corrupt, predict, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig
from couette.contracts import (
    Batch,
    Cond,
    Corruption,
    Level,
    Losses,
    Objective,
    Prediction,
    Scalings,
)
from couette.denoiser import Denoiser, LogVariance, bound_term, regular, restored, singular, target
from couette.errors import ConfigError
from couette.registry import (
    LOSSES,
    OBJECTIVES,
    PAIRINGS,
    PARAMETERIZATIONS,
    TIMES,
    WEIGHTINGS,
)
from couette.runtime import replayed
from couette.schedules import entries, log_snr, mixed
from couette.tensors import Stream, expand, normal, sent, uniform
from couette.training.importance import Importance


@OBJECTIVES.register("diffusion")
class DiffusionObjective(Objective):
    """The weighted error of the network's output at random noise levels.

    Every draw (time, noise, hidden labels, what is recalled) is a function of (seed, epoch, sample
    index), so it is the same at any batch size, device or world size; of strata, of the sample's
    place in the run as well. Pairings and importance look at other samples, too.

    w(t)·d(F(x_t), target), x_t = alpha·x0 + sigma·eps: with `eps`, `uniform` and `mse` L_simple (Ho
    et al. 2020, eq. 14), with `edm` and log-normal times EDM's loss (Karras et al. 2022, eq. 8).
    When to use it: first.

    Args:
        denoiser: the denoiser whose network is trained.
        config: what is drawn, how errors are measured and weighed, which labels are hidden.
        untold: what the network is told of a picture of which it is told nothing, one row each.
        seed: the run's seed.

    Raises:
        ConfigError: settings that contradict each other.
    """

    def __init__(self, denoiser: Denoiser, config: DiffusionConfig, untold: Cond, seed: int):
        super().__init__()
        self.denoiser, self.config, self.seed = denoiser, config, seed
        self.untold = {key: row.to(denoiser.runtime.device) for key, row in untold.items()}
        self.network = cast(nn.Module, denoiser.network)
        self.times: Callable[..., Tensor] = TIMES.bind(config.times)
        self.loss: Callable[[Tensor, Tensor], Tensor] = LOSSES.bind(config.loss)
        self.pair: Callable[[Tensor, Tensor], Tensor] = PAIRINGS.bind(config.pairing)
        self.couples = PAIRINGS.trait(config.pairing.name, "couples", False)
        self.weighting: Callable[[Level, Scalings], Tensor] = WEIGHTINGS.bind(config.weighting)
        # λ times the sum over the table's entries (Nichol & Dhariwal 2021, eq. 16), of which one
        # is drawn.
        self.bound = config.vlb * (entries(denoiser.corruption.schedule) or 1)
        learned = WEIGHTINGS.trait(config.weighting.name, "learned", False)
        self.uncertainty = LogVariance().to(denoiser.runtime.device) if learned else None
        self.importance = Importance(config.importance) if config.importance else None
        self._draw: Callable[[Tensor], Tensor] | None = None
        self._refuse_contradictions()

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"network": list(self.parameters())}

    def updated(self, step: int) -> None:
        if self.importance is not None:
            self.importance.update()

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch: (B,), with log-SNR and unweighted error to log."""
        u = self._quantiles(batch)
        if self.importance is None:
            return self.at(batch, self._times(u))
        u, index, factor = self.importance(u)
        losses = self.at(batch, self._times(u))
        if self.training:
            self.importance.record(index, losses.loss.cpu())
        return losses._replace(loss=losses.loss * expand(factor, losses.loss))

    def at(self, batch: Batch, t: Tensor) -> Losses:
        """The losses at given times, (B,) float64: how held-out loss per level is measured."""
        x0, schedule = batch.data, self.denoiser.corruption.schedule
        level = schedule.level(t)
        scalings = self.denoiser.parameterization(level)
        eps = self._noise(batch)
        x = mixed(x0, Level(expand(level.alpha, x0), expand(level.sigma, x0)), eps)
        cond = self._recalled(batch, x, t, self._hidden(batch))
        output, mix = self.denoiser.raw(x, t, level, scalings, cond)
        error = self.loss(output, target(scalings, level, x0, eps))
        loss = expand(self.weighting(level, scalings), error) * error
        logs = {"log_snr": log_snr(level), "error": error.detach()}
        if self.uncertainty is not None:
            logs["loss"] = loss.detach()
            loss = self.uncertainty.normalized(loss, level)
        if mix is not None:
            # The bound teaches the variance alone: the mean has its own loss.
            predicted = Prediction(restored(scalings, x, output.detach()), mix=mix)
            loss = loss + self.bound * bound_term(schedule, x0, t, predicted)
        return Losses(loss, logs)

    def _quantiles(self, batch: Batch) -> Tensor:
        """u in (0, 1), (B,) float64; with strata, consecutive samples take one each."""
        u = uniform(self.seed, batch.keys, Stream.TIME).double() + 2.0**-25
        if self.config.strata == 1:
            return u
        if batch.places is None:
            raise ConfigError("diffusion.strata needs a batch that says where in the run it is.")
        return (batch.places % self.config.strata + u) / self.config.strata

    def _times(self, u: Tensor) -> Tensor:
        return self.times(self.denoiser.corruption.schedule, u)

    def _noise(self, batch: Batch) -> Tensor:
        """Noise like the data, (B, C, H, W)."""
        eps = self._drawn(batch)
        if self.training:
            if self.config.offset:
                shape = (batch.data.shape[1], 1, 1)
                keys = sent(batch.keys, eps.device)
                eps = eps + self.config.offset * normal(self.seed, keys, Stream.OFFSET, shape)
            eps = self.pair(eps, batch.data)
        return eps.contiguous(memory_format=torch.channels_last)

    def _drawn(self, batch: Batch) -> Tensor:
        """The batch's own noise. Its hundreds of small kernels are recorded where a step's are."""
        if not self.training or not self.denoiser.runtime.graph:
            return keyed_noise(batch, self.denoiser.corruption, self.seed)
        if self._draw is None:
            # Of this first batch only the shape and the device are used again.
            def draw(keys: Tensor) -> Tensor:
                return keyed_noise(batch._replace(keys=keys), self.denoiser.corruption, self.seed)

            self._draw = replayed(draw)
        return self._draw(sent(batch.keys, batch.data.device))

    def _recalled(self, batch: Batch, x: Tensor, t: Tensor, cond: Cond) -> Cond:
        """Half of the time, with the network's own first prediction (Chen et al. 2023, alg. 1)."""
        if not self.config.self_conditioning or not self.training:
            return cond
        with torch.no_grad():
            first = self.denoiser(x, t, cond).x0
        told = uniform(self.seed, batch.keys, Stream.RECALL) < 0.5
        return {**cond, "x0": first * expand(told, x)}

    def _hidden(self, batch: Batch) -> Cond:
        """What is told of the batch, with all of it left out of a share of the rows."""
        drop = self.config.drop
        if not drop or not self.training or not batch.cond:
            return batch.cond
        hidden = sent(uniform(self.seed, batch.keys, Stream.DROP) < drop, batch.data.device)
        return {
            key: torch.where(hidden.reshape(-1, *[1] * (value.ndim - 1)), self.untold[key], value)
            for key, value in batch.cond.items()
        }

    def _refuse_contradictions(self) -> None:
        config, schedule = self.config, self.denoiser.corruption.schedule
        if self.importance is not None and self.uncertainty is not None:
            raise ConfigError(
                "The weighting 'uncertainty' makes all losses alike, so diffusion.importance has "
                "nothing to go by; leave that out, or give --diffusion.weighting uniform."
            )
        end = schedule.level(torch.ones((), dtype=torch.float64))
        if entries(schedule) and singular(self.denoiser.parameterization(end)):
            raise ConfigError(
                f"The table '{config.schedule}' ends in pure noise, where a network that predicts "
                f"'{config.parameterization}' can't say what the picture is; predict one of "
                f"{', '.join(regular(end))}."
            )
        if config.weighting.name == "uniform" and PARAMETERIZATIONS.trait(
            config.parameterization.name, "unbounded"
        ):
            raise ConfigError(
                f"The error of '{config.parameterization}' grows without bound where there is "
                "little noise, so the weighting 'uniform' would teach nothing else; give "
                "--diffusion.weighting snr."
            )


def corrupted(batch: Batch, t: Tensor, corruption: Corruption, seed: int) -> Tensor:
    """A batch at the times t (B,), with the noise that is its own."""
    x0, level = batch.data, corruption.schedule.level(t)
    eps = keyed_noise(batch, corruption, seed)
    return mixed(x0, Level(expand(level.alpha, x0), expand(level.sigma, x0)), eps)


def keyed_noise(batch: Batch, corruption: Corruption, seed: int) -> Tensor:
    """Noise like the data, (B, C, H, W): a function of the seed and of `batch.keys`."""
    draw = normal if corruption.noise == "normal" else uniform
    eps = draw(seed, sent(batch.keys, batch.data.device), Stream.NOISE, batch.data.shape[1:])
    return eps.contiguous(memory_format=torch.channels_last)
