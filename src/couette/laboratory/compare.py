"""Trials on one model from the same noise, against a fine solution and against real pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from couette import generate
from couette.config import SamplingConfig, spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction
from couette.errors import InputError, NotFinite
from couette.evaluation.judge import Judge
from couette.laboratory.trials import Outcome, Trial
from couette.model import Model
from couette.registry import SAMPLERS

FINE = 256
"""Steps of Heun's method in the fine solution."""


class Bench:
    """One model, one seed, what is asked: everything that trials have in common.

    Args:
        model: the model.
        asked: what each of the compared pictures is to show.
        seed: of the noise.
        batch: pictures drawn at once.
        sampling: guidance and clipping; sampler, grid and steps are a trial's.
        judge: compares samples with real pictures; None leaves the Fréchet distance out.
        fine: steps of the fine solution.
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
    ) -> None:
        self.model, self.asked, self.seed, self.batch = model, list(asked), seed, batch
        self.sampling = sampling or model.config.sampling
        self.judge, self.fine = judge, fine
        self._solutions: dict[float, Tensor] = {}

    def __call__(self, trial: Trial) -> tuple[Outcome, Tensor | None]:
        """What comes of a trial, and the pictures it drew; None where it was refused."""
        sampling = trial.sampling(self.sampling)
        counter = _Counter()
        begun = time.perf_counter()
        try:
            drawn = self._drawn(self.asked, sampling, counter)
            seconds = time.perf_counter() - begun
            error = None if _draws_noise(trial) else self._error(drawn, sampling)
            frechet = None if self.judge is None else self._frechet(drawn, sampling)
        except (InputError, NotFinite) as refusal:
            return Outcome.of(trial, refused=str(refusal)), None
        outcome = Outcome.of(
            trial,
            evaluations=counter.count,
            error=error,
            frechet=frechet,
            seconds=round(seconds, 3),
        )
        return outcome, drawn

    def solution(self, start: Tensor) -> Tensor:
        """Where the probability-flow ODE leads from this seed's noise at the time `start`."""
        if float(start) not in self._solutions:
            times = fine_times(start, self.fine)
            grid = spec("given", times=tuple(times.tolist()))
            fine = Trial(spec("heun"), grid, self.fine).sampling(self.sampling)
            self._solutions[float(start)] = self._drawn(self.asked, fine)
        return self._solutions[float(start)]

    def _error(self, drawn: Tensor, sampling: SamplingConfig) -> float:
        start = generate.times_of(self.model, sampling)[0]
        difference = (drawn - self.solution(start)).double()
        return float(difference.square().mean().sqrt())

    def _frechet(self, drawn: Tensor, sampling: SamplingConfig) -> float:
        """Of as many samples as the judge was made for; those that are drawn already count."""
        assert self.judge is not None
        in_turn = generate.in_turn(self.model, self.judge.count)
        first = len(self.asked) if self.asked == in_turn[: len(self.asked)] else 0
        more = self._drawn(in_turn[first:], sampling, first=first)
        distances, _ = self.judge(torch.cat((drawn[:first], more)), None)
        return distances.frechet

    def _drawn(
        self,
        asked: Sequence[Ask],
        sampling: SamplingConfig,
        counter: _Counter | None = None,
        first: int = 0,
    ) -> Tensor:
        """Pictures, (N, C, H, W) in [-1, 1]; `counter` counts the first batch's evaluations."""
        parts = [torch.empty(0, *self.model.shape)] if not asked else []
        for start in range(0, len(asked), self.batch):
            run = generate.steps(
                self.model,
                asked[start : start + self.batch],
                seed=self.seed,
                first=first + start,
                sampling=sampling,
                editor=counter if start == 0 else None,
            )
            for step in run:
                last = step
            parts.append(generate.finished(self.model, last.x))
        return torch.cat(parts)


def fine_times(start: Tensor, steps: int) -> Tensor:
    """Even in the schedule's own time, from `start` to 0: (steps + 1,) float64."""
    return torch.linspace(float(start), 0, steps + 1, dtype=torch.float64)


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


def _draws_noise(trial: Trial) -> bool:
    """Whether a sampler, as it is set, has no one solution."""
    sampler = trial.sampler
    return bool(SAMPLERS.trait(sampler.name, "noise") or sampler.settings.get("eta"))
