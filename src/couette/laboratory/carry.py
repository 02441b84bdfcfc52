"""The lab itself: what is tried in which order, and what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from couette.config import Spec, spec
from couette.data import Progress
from couette.laboratory.compare import Bench
from couette.laboratory.results import Results
from couette.laboratory.search import search
from couette.laboratory.trials import Outcome, Trial, every, trials
from couette.model import Model
from couette.storage import tensor_bytes


def planned(
    bench: Bench,
    samplers: Sequence[Spec],
    grids: Sequence[Spec],
    steps: Sequence[int],
    scales: Sequence[float] = (),
) -> list[Trial]:
    """Every sampler asked for on every grid; all that fit the model, on its own grid and at its own
    scale of guidance, by default.

    Raises:
        InputError, UnknownName, ConfigError: as `trials`.
    """
    corruption = bench.model.denoiser.corruption
    chosen = samplers or every(corruption), grids or [bench.sampling.grid]
    return list(trials(*chosen, steps, scales or [bench.sampling.guidance]))


def searched(bench: Bench, samplers: Sequence[Spec], steps: Sequence[int]) -> list[Trial]:
    """Every sampler asked for on the grid that `search` finds for each number of steps.

    Raises:
        InputError: as `search`.
    """
    if not steps:
        return []
    chosen = samplers or every(bench.model.denoiser.corruption)
    found = search(bench.model, bench.asked, steps, seed=bench.seed, sampling=bench.sampling)
    return [
        trial
        for count, times in sorted(found.items())
        for trial in trials(
            chosen, [spec("given", times=times)], [count], [bench.sampling.guidance]
        )
    ]


def carry_out(
    bench: Bench,
    tried: Sequence[Trial],
    results: Results,
    progress: Progress | None = None,
    watch: Callable[[Outcome], None] | None = None,
) -> None:
    """Do the trials that have no outcome yet, keeping each as it comes."""
    for done, trial in enumerate(tried):
        if progress:
            progress(f"{trial.sampler}, {trial.steps} steps", done, len(tried))
        if trial not in results:
            outcome, drawn = bench(trial)
            results.add(outcome, None if drawn is None else drawn[0])
            if watch:
                watch(outcome)


def measured_on(model: Model, bench: Bench) -> dict[str, Any]:
    """What every outcome depends on, as JSON: outcomes of anything else are not comparable."""
    weights = hashlib.sha256(tensor_bytes(model.network.state_dict())).hexdigest()
    return {
        "weights": weights,
        "asked": [ask.label for ask in bench.asked],
        "seed": bench.seed,
        "guider": [str(each) for each in bench.sampling.guider],
        "threshold": str(bench.sampling.threshold),
        "fine": bench.fine,
        "frechet": bench.judge.count if bench.judge else 0,
    }
