"""What is tried, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

from couette.config import SamplingConfig, Spec
from couette.contracts import Corruption
from couette.errors import InputError
from couette.registry import GRIDS, SAMPLERS


@dataclass(frozen=True)
class Trial:
    """One way to draw: a sampler on a grid of so many steps, with so much guidance."""

    sampler: Spec
    grid: Spec
    steps: int
    guidance: float = 1.0

    def __str__(self) -> str:
        return f"{self.sampler} on {self.grid}, {self.steps} steps, guidance {self.guidance:g}"

    def sampling(self, base: SamplingConfig) -> SamplingConfig:
        """`base` with this trial's sampler, grid, steps and guidance."""
        names = ("sampler", "grid", "steps", "guidance")
        return base.model_copy(update={name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    noisy: it draws noise on its way.
    evaluations: of the denoiser, counted; a guided one counts once.
    error: root mean squared difference from the fine solution, in units of [-1, 1]; None for a
        sampler that draws noise, which has no one solution.
    doubt: the same of the fine solution itself, from one in half as many steps: errors below it
        say nothing.
    frechet, accuracy, coverage: of its samples the Fréchet distance, the share that shows the
        class asked for, and the share of real pictures with a sample nearby, which says how varied
        they are; None where none were compared or there is nothing to tell.
    seconds: to draw the pictures whose error was measured.
    refused: why it could not be done, in a sentence; else None.
    """

    trial: str
    sampler: str
    grid: str
    steps: int
    guidance: float = 1.0
    noisy: bool = False
    evaluations: int | None = None
    error: float | None = None
    doubt: float | None = None
    frechet: float | None = None
    accuracy: float | None = None
    coverage: float | None = None
    seconds: float | None = None
    refused: str | None = None

    @classmethod
    def of(cls, trial: Trial, **found: Any) -> Outcome:
        """The outcome of a trial, with what was found."""
        sampler = str(SAMPLERS.brief(trial.sampler))
        return cls(str(trial), sampler, str(trial.grid), trial.steps, trial.guidance, **found)

    def json(self) -> dict[str, Any]:
        return asdict(self)


def trials(
    samplers: Sequence[Spec],
    grids: Sequence[Spec],
    steps: Sequence[int],
    scales: Sequence[float] = (1.0,),
) -> Iterator[Trial]:
    """Every sampler on every grid in every number of steps at every scale, few steps first.

    Raises:
        InputError: nothing to try, or a number of steps below 1.
        UnknownName, ConfigError: a part or setting that does not exist.
    """
    if not samplers or not grids or not steps:
        raise InputError("The lab needs a sampler, a grid and a number of steps; name one of each.")
    if min(steps) < 1:
        raise InputError(f"A sampler takes at least 1 step, not {min(steps)}.")
    whole = [
        [registry.explicit(each) for each in specs]
        for registry, specs in ((SAMPLERS, samplers), (GRIDS, grids))
    ]
    for count, scale, grid, sampler in product(sorted(set(steps)), scales, whole[1], whole[0]):
        yield Trial(sampler, grid, count, scale)


def every(corruption: Corruption) -> list[Spec]:
    """All samplers that take this corruption, each as it stands, but for two that are Euler by
    another name and those that run backwards."""

    def fits(name: str) -> bool:
        told = partial(SAMPLERS.trait, name)
        normal = corruption.noise == "normal" or bool(told("mix"))
        return normal and not (told("inverse") or told("states"))

    return [Spec(name=name) for name in SAMPLERS if name not in ("ddim", "mix") and fits(name)]
