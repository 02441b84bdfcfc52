"""The Denoiser, and how the settings become one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from couette.config import STATES, DiffusionConfig
from couette.contracts import (
    Cond,
    Corruption,
    Level,
    Network,
    Parameterization,
    Prediction,
    Scalings,
    Schedule,
    Told,
)
from couette.errors import ConfigError, ShapeError
from couette.networks.text import READ
from couette.registry import PARAMETERIZATIONS, SCHEDULES, TOLD
from couette.runtime import Runtime
from couette.schedules import Mixture, entries
from couette.tensors import expand, sent


class Denoiser:
    """A network with a corruption and a parameterization: (x_t, t, cond) to the predicted x0.

    Args:
        network: the module; it runs in its own float32, under the runtime's autocast.
        corruption: what x_t is.
        parameterization: what the network's output means.
        told: what the network is told of the time.
        runtime: where and in what arithmetic the network runs.
        learned: whether the second half of the network's output is the reverse steps' variance.
    """

    def __init__(
        self,
        network: Network,
        corruption: Corruption,
        parameterization: Parameterization,
        told: Told,
        runtime: Runtime | None = None,
        *,
        learned: bool = False,
    ) -> None:
        self.network = network
        self.corruption = corruption
        self.parameterization = parameterization
        self.told = told
        self.runtime = runtime or Runtime()
        self.learned = learned

    def raw(
        self, x: Tensor, t: Tensor, level: Level, scalings: Scalings, cond: Cond
    ) -> tuple[Tensor, Tensor | None]:
        """The network's output F for x (B, C, H, W) at t (0-d or (B,)), and the variance's `mix`.

        Where the variance is learned, an output of −1 means that of the exact reverse step, mix 0,
        and 1 means beta, mix 1 (Nichol & Dhariwal 2021, sec. 3.1: nothing keeps it in between).
        """
        told = self.told(t, level).reshape(-1).expand(x.shape[0])
        told = sent(told.to(torch.float32), x.device)
        inputs = (expand(scalings.inp, x) * x).float()
        if x.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.runtime.memory_format)
        with self.runtime.autocast():
            output: Tensor = self.network(inputs, told, cond).to(x.dtype)
        expected = (x.shape[0], x.shape[1] * (2 if self.learned else 1), *x.shape[2:])
        if output.ndim == x.ndim and output.shape != expected:
            raise ShapeError(
                f"The network makes {tuple(output.shape[1:])} of pictures of {tuple(x.shape[1:])}, "
                f"where {expected[1:]} is needed; choose other settings for it, such as an odd "
                "kernel, or another network."
            )
        if not self.learned:
            return output, None
        output, between = output.chunk(2, dim=1)
        return output, (between + 1) / 2

    @torch.no_grad()
    def read(self, cond: Cond) -> dict[str, Tensor]:
        """`cond`, and what the network makes of its words: told so, it does not read them again.

        For this denoiser alone: others are told `unread` of it.
        """
        read: Callable[[Cond], Cond] | None = getattr(self.network, "read_once", None)
        if read is None:
            return {**cond}
        with self.runtime.autocast():
            return {**cond, **read(cond)}

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """Predict x0.

        Args:
            x: (B, C, H, W) at time t.
            t: 0-d or (B,), in [0, 1].
            cond: what the network is told beside, as its `wants` says.
        """
        level = self.corruption.schedule.level(t)
        scalings = self.parameterization(level)
        output, mix = self.raw(x, t, level, scalings, cond)
        return Prediction(restored(scalings, x, output), mix=mix)


def unread(cond: Cond) -> dict[str, Tensor]:
    """`cond` as it was before a network had read its words."""
    return {key: rows for key, rows in cond.items() if key not in READ}


def restored(scalings: Scalings, x: Tensor, output: Tensor) -> Tensor:
    """What F says x0 is: skip·x + out·F."""
    return expand(scalings.skip, x) * x + expand(scalings.out, x) * output


def target(scalings: Scalings, level: Level, x0: Tensor, eps: Tensor) -> Tensor:
    """What F should be: (x0 − skip·x_t)/out, with the terms in x0 and eps kept apart: their two
    coefficients are float64's, to 1e-16/sigma, where the difference of pictures would cancel."""
    on_x0 = (1 - scalings.skip * level.alpha) / scalings.out
    on_eps = -scalings.skip * level.sigma / scalings.out
    return expand(on_x0, x0) * x0 + expand(on_eps, x0) * eps


def build_corruption(config: DiffusionConfig) -> Corruption:
    """The corruption that the settings describe.

    Raises:
        ConfigError: uniform noise on anything but the straight mix, or states on a schedule that
            says nothing of shares.
    """
    if config.noise in STATES:
        return Corruption(Mixture(SCHEDULES.build(config.schedule)), config.noise)
    if config.noise == "uniform" and config.schedule.name != "flow":
        raise ConfigError(
            f"Uniform noise belongs to the toy mix, schedule 'flow', not to "
            f"'{config.schedule.name}'; set diffusion.noise to normal."
        )
    return Corruption(SCHEDULES.build(config.schedule), config.noise)


def build_denoiser(
    config: DiffusionConfig, network: Network, runtime: Runtime | None = None
) -> Denoiser:
    """The denoiser that the settings describe, around a built network.

    Raises:
        ConfigError: settings that contradict each other.
    """
    corruption = build_corruption(config)
    _refuse_contradictions(config, corruption.schedule)
    told = config.told
    if told.name == "index" and told.settings.get("steps") is None:
        count = entries(corruption.schedule)
        if count is None:
            raise ConfigError(
                f"The schedule '{config.schedule.name}' has no table to tell the index of; set "
                "diffusion.told to log or time."
            )
        told = told.with_settings(steps=count)
    parameterization = PARAMETERIZATIONS.bind(config.parameterization)
    learned = config.variance == "learned"
    return Denoiser(
        network, corruption, parameterization, TOLD.bind(told), runtime, learned=learned
    )


def _refuse_contradictions(config: DiffusionConfig, schedule: Schedule) -> None:
    """Refuse objectives whose parts do not go together.

    Raises:
        ConfigError: which, and what to change.
    """
    if config.variance == "learned" and entries(schedule) is None:
        raise ConfigError(
            f"A learned variance belongs to the steps of a table, and the schedule "
            f"'{config.schedule.name}' has none; choose one with a table, such as cosine."
        )
    if config.variance == "learned" and config.offset:
        raise ConfigError(
            "A learned variance is that of normal noise, and diffusion.offset changes the noise; "
            "leave one of them out."
        )
    if config.noise == "uniform" and config.offset:
        raise ConfigError(
            "diffusion.offset adds to normal noise, not to uniform noise; leave it out."
        )
