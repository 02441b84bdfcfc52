from __future__ import annotations

from pathlib import Path

import torch

from couette.config import spec
from couette.laboratory import Outcome, Results, Trial

HEUN = Trial(spec("heun"), spec("karras"), 4)
EULER = Trial(spec("euler"), spec("karras"), 4)


def test_what_was_found_is_there_again(tmp_path: Path) -> None:
    results = Results(tmp_path, {"seed": 0})
    results.add(Outcome.of(HEUN, evaluations=7, error=0.25), torch.ones(1, 2, 2))
    results.add(Outcome.of(EULER, refused="no"))
    again = Results(tmp_path, {"seed": 0})
    assert HEUN in again and EULER in again
    assert list(again) == list(results)
    assert torch.equal(again.pictures[str(HEUN)], torch.ones(1, 2, 2))


def test_outcomes_of_other_weights_or_noise_are_not_taken_up(tmp_path: Path) -> None:
    Results(tmp_path, {"seed": 0}).add(Outcome.of(HEUN, evaluations=7, error=0.25))
    assert list(Results(tmp_path, {"seed": 1})) == []


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    results = Results(tmp_path, {"seed": 0})
    results.add(Outcome.of(HEUN, evaluations=7, error=0.25))
    results.path.write_text(results.path.read_text() + '{"trial": 3}\n')
    assert list(Results(tmp_path, {"seed": 0})) == []
    results.path.write_text("\x00")
    assert list(Results(tmp_path, {"seed": 0})) == []


class TestBest:
    def results(
        self, tmp_path: Path, *rows: tuple[str, int, float | None, float | None]
    ) -> Results:
        results = Results(tmp_path, {})
        for name, evaluations, error, frechet in rows:
            trial = Trial(spec(name), spec("karras"), evaluations)
            results.add(Outcome.of(trial, evaluations=evaluations, error=error, frechet=frechet))
        return results

    def best(self, results: Results, evaluations: int | None = None) -> str:
        found = results.best(evaluations)
        assert found is not None
        return found.sampler

    def test_is_the_cheapest_that_is_nearly_as_good(self, tmp_path: Path) -> None:
        rows = (("heun", 100, 0.100, None), ("euler", 10, 0.104, None), ("lms", 5, 0.2, None))
        results = self.results(tmp_path, *rows)
        assert self.best(results) == "euler"
        assert self.best(results, evaluations=6) == "lms"
        assert results.best(evaluations=4) is None

    def test_goes_by_the_frechet_distance_where_it_was_measured(self, tmp_path: Path) -> None:
        rows = (("heun", 10, 0.1, 9.0), ("ddpm", 10, None, 3.0), ("lms", 1, 0.0, None))
        assert self.best(self.results(tmp_path, *rows)) == "ddpm"

    def test_nothing_found_has_no_best(self, tmp_path: Path) -> None:
        results = Results(tmp_path, {})
        results.add(Outcome.of(HEUN, refused="no"))
        assert results.best() is None
