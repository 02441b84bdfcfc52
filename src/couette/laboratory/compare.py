"""Trials on one model from the same noise, against a fine solution and against real pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from couette import generate
from couette.config import SamplingConfig, spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction, Schedule, Step
from couette.data import Progress
from couette.errors import InputError, NotFinite
from couette.evaluation.judge import Judge
from couette.laboratory.trials import Outcome, Trial
from couette.model import Model
from couette.samplers import draws_noise
from couette.schedules import entries, ratio

FINE = 96
"""Steps of the classical Runge-Kutta method in the fine solution, four evaluations each."""

_MOST, _LEAST = 1e3, 2e-3
"""Between these noise levels, sigma/alpha, the fine solution's steps lie; what is left to pure
noise and to the picture is a plain move, whose error is of the order of 1e-6."""


class Bench:
    """One model, one seed, what is asked: everything that trials have in common.

    Args:
        model: the model.
        asked: what each of the compared pictures is to show.
        seed: of the noise.
        batch: pictures drawn at once.
        sampling: guider and threshold; sampler, grid, steps and scale are a trial's.
        judge: compares samples with real pictures; None leaves the Fréchet distance out.
        fine: steps of the fine solution.
        progress: told how many of a trial's pictures are drawn, step by step.
    """

    def __init__(
        self,
        model: Model,
        asked: Sequence[Ask],
        *,
        seed: int = 0,
        batch: int = 64,
        sampling: SamplingConfig | None = None,
        judge: Judge | None = None,
        fine: int = FINE,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.asked, self.seed, self.batch = model, list(asked), seed, batch
        self.sampling = sampling or model.config.sampling
        self.judge, self.fine, self.progress = judge, fine, progress
        self._solutions: dict[tuple[float, float], Solution] = {}

    def __call__(self, trial: Trial) -> tuple[Outcome, Tensor | None]:
        """What comes of a trial, and the pictures it drew; None where it was refused."""
        sampling = trial.sampling(self.sampling)
        counter = _Counter()
        begun = time.perf_counter()
        try:
            drawn = self._drawn(self.asked, sampling, counter)
            seconds = time.perf_counter() - begun
            noisy = draws_noise(trial.sampler)
            fine = None if noisy else self.solution(trial)
            judged = {} if self.judge is None else self._judged(self.judge, drawn, sampling)
        except (InputError, NotFinite) as refusal:
            return Outcome.of(trial, refused=str(refusal)), None
        outcome = Outcome.of(
            trial,
            noisy=noisy,
            evaluations=counter.count,
            error=None if fine is None else rms(drawn, fine.pictures),
            doubt=None if fine is None else fine.doubt,
            **judged,
            seconds=round(seconds, 3),
        )
        return outcome, drawn

    def solution(self, trial: Trial) -> Solution:
        """Where the probability-flow ODE leads from this seed's noise where a trial starts, under
        its guidance."""
        start = generate.times_of(self.model, trial.sampling(self.sampling))[0]
        key = float(start), trial.guidance
        if key not in self._solutions:
            counts = self.fine, self.fine // 2
            fine, half = (self._solved(start, trial.guidance, steps) for steps in counts)
            self._solutions[key] = Solution(fine, rms(fine, half))
        return self._solutions[key]

    def _solved(self, start: Tensor, guidance: float, steps: int) -> Tensor:
        times = fine_times(self.model.denoiser.corruption.schedule, start, steps)
        grid = spec("given", times=tuple(times.tolist()))
        fine = Trial(spec("rk4"), grid, len(times) - 1, guidance).sampling(self.sampling)
        return self._drawn(self.asked, fine)

    def _judged(
        self, judge: Judge, drawn: Tensor, sampling: SamplingConfig
    ) -> dict[str, float | None]:
        """Of as many samples as the judge was made for; those that are drawn already count."""
        in_turn = generate.in_turn(self.model, judge.count)
        first = len(self.asked) if self.asked == in_turn[: len(self.asked)] else 0
        more = self._drawn(in_turn[first:], sampling, first=first)
        told = in_turn[0].label is not None and sampling.guidance != 0
        labels = torch.tensor([each.label for each in in_turn]) if told else None
        distances, verdict = judge(torch.cat((drawn[:first], more)), labels)
        return {
            "frechet": distances.frechet,
            "accuracy": None if verdict is None else verdict.accuracy,
            "coverage": distances.coverage,
        }

    def _drawn(
        self,
        asked: Sequence[Ask],
        sampling: SamplingConfig,
        counter: _Counter | None = None,
        first: int = 0,
    ) -> Tensor:
        """Pictures, (N, C, H, W) in [-1, 1]; `counter` counts the first batch's evaluations."""
        parts = [torch.empty(0, *self.model.shape)] if not asked else []
        batch = generate.together(sampling, self.batch)
        for start in range(0, len(asked), batch):
            run = generate.steps(
                self.model,
                asked[start : start + batch],
                seed=self.seed,
                first=first + start,
                sampling=sampling,
                editor=counter if start == 0 else None,
            )
            for step in run:
                last = step
                self._tell(sampling, step, start, len(asked), batch)
            parts.append(generate.finished(self.model, last.x))
        return torch.cat(parts)

    def _tell(
        self, sampling: SamplingConfig, step: Step, start: int, count: int, batch: int
    ) -> None:
        """How far the drawing of `count` pictures is, in the batch that begins at `start`."""
        if self.progress is not None:
            part = (step.index + 1) / step.count if step.count else 0.0
            done = start + round(part * min(batch, count - start))
            self.progress(f"pictures by {generate.said(sampling)}", done, count)


class Solution(NamedTuple):
    """A fine solution, (N, C, H, W), and how far the one in half as many steps lies from it."""

    pictures: Tensor
    doubt: float


def rms(a: Tensor, b: Tensor) -> float:
    """The root mean squared difference of two batches of pictures."""
    return float((a - b).double().square().mean().sqrt())


def fine_times(schedule: Schedule, start: Tensor, steps: int) -> Tensor:
    """Karras' ramp (2022, eq. 5, rho = 7) in sigma/alpha from `start` to 0, whatever the schedule's
    own time is like: (steps + 1,) float64, or a few more where it starts near pure noise or a
    table has no level so low."""
    count = entries(schedule)
    first = torch.tensor(1 / count if count else 0.0, dtype=torch.float64)
    low = ratio(schedule.level(first)).clamp(min=_LEAST)
    high = ratio(schedule.level(start)).clamp(max=_MOST)
    part = torch.linspace(0, 1, steps, dtype=torch.float64)
    ramp = torch.lerp(high ** (1 / 7), low ** (1 / 7), part) ** 7
    times = schedule.time(-2 * ramp.log()).clamp(max=start)
    return torch.cat((start.reshape(1), times[times < start], torch.zeros(1, dtype=torch.float64)))


class _Counter:
    """Counts how often the denoiser it is put around is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, denoise: Denoise) -> Denoise:
        return _Counted(denoise, self)


class _Counted:
    def __init__(self, denoise: Denoise, counter: _Counter) -> None:
        self.denoise, self.counter = denoise, counter

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        self.counter.count += 1
        return self.denoise(x, t, cond)
