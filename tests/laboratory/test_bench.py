"""The lab on a world whose fine solution is the truth."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest
import torch

from couette import api
from couette.config import DataConfig, Spec, spec
from couette.contracts import Level
from couette.data import open_data
from couette.errors import InputError, Interrupted
from couette.evaluation.judge import Judge
from couette.exact import named
from couette.generate import in_turn, sampling_of
from couette.laboratory import (
    Bench,
    Outcome,
    Results,
    Trial,
    carry_out,
    draw_lab,
    measured_on,
    search,
    trials,
)
from couette.laboratory.carry import planned, searched
from couette.laboratory.compare import fine_times
from couette.model import Model, exact_model
from couette.registry import SCHEDULES
from couette.schedules import ratio
from small_runs import POINTS, losses, session
from worlds import Gaussian, draw, run, schedule

EVEN = spec("uniform")


@pytest.fixture(scope="module")
def world() -> Model:
    return exact_model(named("exact:mixture"))


@pytest.fixture(scope="module")
def bench(world: Model) -> Bench:
    sampling = sampling_of(world, grid="uniform", guidance=1.0)
    return Bench(world, in_turn(world, 10), batch=4, sampling=sampling, fine=64)


def test_more_steps_leave_a_smaller_error(bench: Bench) -> None:
    errors, evaluations = [], []
    for steps in (4, 8, 16, 32):
        outcome, drawn = bench(Trial(spec("euler"), EVEN, steps))
        assert drawn is not None and drawn.shape == (10, 1, 8, 8)
        assert outcome.error is not None
        errors.append(outcome.error)
        evaluations.append(outcome.evaluations)
    assert evaluations == [4, 8, 16, 32]
    assert all(more < 0.75 * less for less, more in itertools.pairwise(errors))


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_the_fine_solution_is_the_truth(name: str) -> None:
    """Against the exact flow of a Gaussian, on every schedule, whatever its own time is like."""
    s = schedule(name)
    start = torch.ones((), dtype=torch.float64)
    times = fine_times(s, start, 48)
    assert times[0] == 1 and times[-1] == 0 and bool((times.diff() < 0).all())
    gaussian, top = Gaussian(s, 0.4, 0.3), s.level(start)
    x = draw(50) * torch.hypot(top.alpha, top.sigma)
    last = run("rk4", gaussian, x, times)[-1].x
    truth = gaussian.carried(x, top, s.level(torch.zeros_like(start)))
    # What lies below a table's first entry is a plain move, of the error that any sampler makes.
    low = ratio(s.level(times[-2]))
    assert (last - truth).abs().max() < 1e-4 + 8 * low**2


@pytest.mark.parametrize("name", ["laplace", "scaled-linear", "edm"])
def test_a_better_method_has_the_smaller_error(name: str) -> None:
    """The reference is finer than what is measured by it, and its doubt says how fine."""
    model = exact_model(named(f"exact:mixture:schedule={name}"))
    sampling = sampling_of(model, grid="karras", guidance=1.0)
    bench = Bench(model, in_turn(model, 6), sampling=sampling)
    found = [
        bench(Trial(spec(sampler), spec("karras"), steps))[0]
        for sampler, steps in (("euler", 20), ("dpmpp-2m", 20), ("rk4", 20))
    ]
    errors = [each.error for each in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.3 * errors[1]
    assert found[0].doubt is not None and found[0].doubt < 0.01


def test_what_is_below_the_doubt_is_no_better(tmp_path: Path) -> None:
    """Of two errors that can't be told apart the cheaper sampler wins."""
    results = Results(tmp_path, {})
    for steps, error in ((9, 1e-6), (5, 9e-4), (2, 0.3)):
        trial = Trial(spec("euler"), EVEN, steps)
        results.add(Outcome.of(trial, evaluations=steps, error=error, doubt=1e-3))
    best = results.best()
    assert best is not None and best.steps == 5


def test_either_kind_has_its_winner(tmp_path: Path) -> None:
    results = Results(tmp_path, {})
    for sampler, noisy, frechet in (("euler", False, 3.0), ("heun", False, 2.0), ("ddpm", True, 5)):
        trial = Trial(spec(sampler), EVEN, 4)
        results.add(Outcome.of(trial, evaluations=4, noisy=noisy, frechet=frechet))
    winners = [results.best(noisy=noisy) for noisy in (False, True)]
    assert [each and each.sampler for each in winners] == ["heun", "ddpm"]


@pytest.mark.parametrize(
    "sampler", ["edm:s_churn=0", "sa-solver:tau=0", "euler-ancestral:eta=0", "restart:repeats=0"]
)
def test_one_whose_noise_is_off_has_an_error(bench: Bench, sampler: str) -> None:
    outcome, _ = bench(Trial(Spec.model_validate(sampler), EVEN, 8))
    assert outcome.error is not None and not outcome.noisy


@pytest.mark.parametrize("sampler", ["ddpm:variance=beta", "ddim:eta=0.5"])
def test_a_sampler_that_draws_noise_has_no_error(bench: Bench, sampler: str) -> None:
    outcome, drawn = bench(Trial(Spec.model_validate(sampler), EVEN, 4))
    assert drawn is not None
    assert (outcome.error, outcome.evaluations, outcome.refused) == (None, 4, None)


def test_one_that_chooses_its_steps_has_an_error(bench: Bench) -> None:
    outcome, _ = bench(Trial(spec("dopri5"), EVEN, 4))
    assert outcome.error is not None and outcome.error < 0.01
    assert outcome.evaluations is not None and outcome.evaluations > 4


def test_a_trials_own_progress_is_told(world: Model) -> None:
    """Step by step, so that a thousand of them are not silent."""
    told: list[tuple[str, int, int]] = []
    sampling = sampling_of(world, grid="uniform", guidance=1.0)
    bench = Bench(
        world,
        in_turn(world, 6),
        batch=4,
        sampling=sampling,
        progress=lambda *each: told.append(each),
    )
    bench(Trial(spec("ddpm"), EVEN, 4))
    assert [done for _, done, _ in told] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert {(what, of) for what, _, of in told} == {("pictures by ddpm, 4 steps", 6)}


def test_what_can_not_be_done_is_said(bench: Bench) -> None:
    outcome, drawn = bench(Trial(spec("heun"), spec("strided"), 4))
    assert drawn is None
    assert "table" in str(outcome.refused)


def test_a_signal_is_no_refusal(bench: Bench) -> None:
    """Stopped in a trial, the lab stops; the trial is done when it goes on."""

    def stopped(*_: object) -> Level:
        raise Interrupted(signal.SIGTERM, "Stopped.")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(bench.model.denoiser.corruption.schedule, "level", stopped)
        bench(Trial(spec("euler"), EVEN, 4))


def test_a_found_grid_beats_an_even_one(bench: Bench) -> None:
    found = searched(bench, [spec("euler")], [5])
    (trial,) = found
    times = trial.grid.settings["times"]
    assert (len(times), times[0], times[-1]) == (6, 1.0, 0.0)
    mine, _ = bench(trial)
    even, _ = bench(Trial(spec("euler"), EVEN, 5))
    assert mine.error is not None and even.error is not None
    assert mine.error < 0.8 * even.error


def test_more_steps_than_candidates_are_refused(world: Model) -> None:
    with pytest.raises(InputError, match="can't be chosen from 8 times"):
        search(world, in_turn(world, 2), [9], candidates=8)


def test_all_samplers_that_fit_are_tried(bench: Bench) -> None:
    tried = planned(bench, [], [], [3])
    names = [trial.sampler.name for trial in tried]
    assert len(set(names)) == len(names) > 10
    assert {"euler", "heun", "ddpm"} <= set(names)
    assert not {"ddim", "mix", "ddim-inverse", "categorical"} & set(names)
    assert {trial.grid.name for trial in tried} == {"uniform"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([], [EVEN], [3]), "name one of each"),
        (([spec("euler")], [EVEN], []), "name one of each"),
        (([spec("euler")], [EVEN], [4, 0]), "at least 1 step, not 0"),
    ],
)
def test_nothing_to_try_is_refused(given: tuple[list, list, list], words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(trials(*given))


def test_a_stopped_lab_goes_on(tmp_path: Path) -> None:
    """Only what is missing is drawn; what was found is the same."""
    given = {"samplers": ["euler"], "count": 4, "out": tmp_path, "device": "cpu"}
    api.lab("exact:mixture", steps=(3,), **given)
    drawn: list[str] = []
    results, figures = api.lab(
        "exact:mixture", steps=(3, 4), watch=lambda each: drawn.append(each.trial), **given
    )
    assert [each.steps for each in results] == [3, 4]
    assert len(drawn) == 1 and "4 steps" in drawn[0]
    assert {path.name for path in figures} == {"error.png", "pictures.png"}
    assert all(path.exists() for path in figures)
    assert {tuple(picture.shape) for picture in results.pictures.values()} == {(1, 8, 8)}


def test_only_a_run_keeps_a_winner(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Only a run keeps a way to draw"):
        api.lab("exact:mixture", steps=(3,), store=True, out=tmp_path)


def test_the_winner_becomes_the_runs_own(tmp_path: Path) -> None:
    """`load` takes it up, and so does a resumed run; a checkpoint draws as it was saved."""
    run = session(tmp_path / "run", POINTS, length={"steps": 4})
    losses(run)
    before = api.load(tmp_path / "run").config.sampling
    given = {"samplers": ["dpmpp-2m"], "grids": ["uniform"], "count": 8, "store": True}
    results, _ = api.lab(tmp_path / "run", steps=(3,), **given)
    best = results.best()
    assert best is not None
    after = api.load(tmp_path / "run").config.sampling
    assert (after.sampler.name, after.grid.name, after.steps) == ("dpmpp-2m", "uniform", 3)
    assert after.guidance == before.guidance
    (checkpoint, *_) = (tmp_path / "run" / "checkpoints").iterdir()
    assert api.load(checkpoint).config.sampling == before
    again = session(tmp_path / "run", {}, resume=True, length={"steps": 5})
    losses(again)
    assert api.load(tmp_path / "run").config.sampling == after


def test_scales_of_guidance_are_compared(tmp_path: Path) -> None:
    """Each against its own fine solution; a scale is part of a trial's name."""
    given = {"samplers": ["heun"], "count": 4, "out": tmp_path, "device": "cpu"}
    results, _ = api.lab("exact:mixture", steps=(8,), guidance=(1, 3), **given)
    assert [each.guidance for each in results] == [1, 3]
    assert len({each.trial for each in results}) == 2
    errors = [each.error for each in results]
    assert all(error is not None and error < 0.5 for error in errors)


def test_guidance_of_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    untold = {**POINTS, "diffusion": {"drop": 1.0}}
    losses(session(tmp_path / "run", untold, length={"steps": 2}))
    with pytest.raises(InputError, match="guidance"):
        api.lab(tmp_path / "run", steps=(3,), guidance=(1, 2))


@pytest.mark.slow
def test_accuracy_and_coverage_go_with_the_scale(tmp_path: Path) -> None:
    """On an exact world judged by the pictures it is a world of. The unconditional one was asked
    for nothing, and real pictures cover real ones."""
    model = exact_model(named("exact:mixture"))
    splits = open_data(DataConfig(source="digits", resolution=8))
    assert splits.test is not None
    judge = Judge(splits.train, splits.test, count=150, alike=True)
    bench = Bench(model, in_turn(model, 10), judge=judge, fine=16)
    results = Results(tmp_path, measured_on(model, bench))
    carry_out(bench, planned(bench, [spec("dpmpp-2m")], [], [8], [0, 1, 4]), results)
    nothing, plain, strong = results
    assert nothing.accuracy is None and plain.accuracy is not None and strong.accuracy is not None
    assert plain.accuracy > 0.8
    assert judge.floor.distances.coverage == pytest.approx(1, abs=0.15)
    assert plain.coverage is not None and strong.coverage is not None
    assert strong.coverage < plain.coverage
    assert tmp_path / "guidance.png" in draw_lab(results, tmp_path)
