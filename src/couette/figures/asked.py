"""What a model is asked for a figure, and how its steps are watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from couette.config import SamplingConfig, Spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction, Schedule
from couette.figures.forward import explodes, fitted
from couette.generate import ask, in_turn, sampling_of, shortened, steps, times_of
from couette.model import Model
from couette.schedules import entries


class Moment(NamedTuple):
    """Where a sampler stands: pictures x at time t, and what was predicted from them.

    x is decoded and, where its noise outgrows the picture, divided by sqrt(alpha² + sigma²).
    predicted is None at the end, where nothing is left to predict.
    """

    t: Tensor
    x: Tensor
    predicted: Tensor | None


def asks(
    model: Model, count: int, label: str | None = None, prompt: Sequence[str] = ()
) -> list[Ask]:
    """One class for all; without one, every class in turn, or nothing where there are none. Words
    beside, several in turn.

    Raises:
        InputError: a label that the model does not know, or words for a model that reads none.
    """
    if label is None and not prompt:
        return in_turn(model, count)
    return ask(model, count, label, prompt=prompt)


def walk_of(
    model: Model,
    length: int | None = None,
    guidance: float | None = None,
    sampler: Spec | None = None,
) -> SamplingConfig:
    """The model's own sampling with what was asked for in its place.

    A shorter walk through DDPM's chain is drawn with DDIM, unless a sampler is asked for.

    Raises:
        UnknownName, ConfigError: a sampler or a setting that does not exist.
    """
    own = model.config.sampling
    if sampler is None and length is not None:
        sampler = shortened(own, length).sampler
    return sampling_of(model, steps=length, guidance=guidance, sampler=sampler)


class _Watched:
    """A denoiser that keeps the first thing it was asked: the noise that sampling starts from."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.start: Tensor | None = None

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        if self.start is None:
            self.start = x
        return self.denoise(x, t, cond)


def moments(
    model: Model, asked: list[Ask], sampling: SamplingConfig, seed: int
) -> Iterator[Moment]:
    """The reverse process of one batch: each input with its prediction, then the result."""
    watched: list[_Watched] = []

    def watch(denoise: Denoise) -> Denoise:
        watched.append(_Watched(denoise))
        return watched[-1]

    t = times_of(model, sampling)[0]
    x: Tensor | None = None
    for step in steps(model, asked, seed=seed, sampling=sampling, editor=watch):
        before = watched[0].start if x is None else x
        assert before is not None  # a sampler asks before it moves
        yield Moment(t, looked_at(model, before, t), looked_at(model, step.x0))
        t, x = step.t, step.x
    if x is not None:
        yield Moment(t, looked_at(model, x, t), None)


@torch.no_grad()
def looked_at(model: Model, x: Tensor, t: Tensor | None = None) -> Tensor:
    """What the denoiser works on, as pictures on the CPU; noisy ones are given their time."""
    if t is not None:
        level = model.denoiser.corruption.schedule.level(t)
        x = fitted(x, level)
    return model.codec.decode(x).float().cpu()


def moment_words(schedule: Schedule, t: Tensor) -> str:
    """A time in a title: how many of a table's steps are left, σ, or t."""
    size = entries(schedule)
    if size is not None:
        return f"t = {round(float(t) * size)}"
    if explodes(schedule):
        return f"σ = {float(schedule.level(t).sigma):.3g}"
    return f"t = {float(t):.2f}"


@torch.no_grad()
def predicted(model: Model, x: Tensor, times: Tensor, asked: list[Ask]) -> Tensor:
    """What the model makes of x (B, C, H, W) at times (B,), in one step, on the CPU."""
    device = model.denoiser.runtime.device
    cond = {key: value.to(device) for key, value in model.conditioner(asked).items()}
    return model.denoiser(x.to(device), times, cond).x0.float().cpu()
