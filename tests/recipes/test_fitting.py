"""What a run's open settings become once the data are known."""

from __future__ import annotations

import pytest
import torch

from couette.data import Dataset
from couette.recipes import default, fit


def pictures(count: int) -> Dataset:
    return Dataset("some", torch.zeros(count, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("count", "batch"), [(2, 32), (999, 32), (1_000, 64), (9_999, 64), (10_000, 128)]
)
def test_a_batch_that_is_not_given_is_sized_from_the_data(count: int, batch: int) -> None:
    config = default().replace(training={"minutes": None, "steps": 100})
    assert fit(config, pictures(count)).training.batch == batch


def test_few_minutes_of_a_processor_are_spent_on_more_steps() -> None:
    config = default().replace(runtime={"device": "cpu"})
    for minutes, batch in ((1.0, 32), (2.0, 32), (2.1, 64), (6.0, 64), (6.1, 128)):
        short = config.replace(training={"minutes": minutes})
        assert fit(short, pictures(20_000)).training.batch == batch
    steps = config.replace(training={"minutes": None, "steps": 100})
    assert fit(steps, pictures(20_000)).training.batch == 128


def test_a_batch_that_is_given_stands_and_a_fitted_config_is_left_alone() -> None:
    config = default().replace(training={"batch": 7})
    fitted = fit(config, pictures(50))
    assert fitted.training.batch == 7
    assert fit(fitted, pictures(50_000)) == fitted
