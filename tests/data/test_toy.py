from __future__ import annotations

import pytest
import torch

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import open_data
from couette.data.toy import GRID_SD, GRID_SPACING
from couette.errors import ConfigError, DataError


@pytest.mark.parametrize(("name", "classes"), [("moons", 2), ("swiss-roll", 0), ("gaussians", 25)])
def test_points_have_mean_zero_and_variance_one(name: str, classes: int) -> None:
    data, test = open_data(DataConfig(source=name, holdout=0))
    points = data.values.reshape(-1, 2)
    assert test is None
    assert data.sizes == Sizes(2, 1, 1, classes)
    tolerance = 0.02 if name == "gaussians" else 1e-5
    assert points.mean(0).abs().max() < tolerance
    assert (points.std(0, correction=0) - 1).abs().max() < tolerance


def test_gaussians_lie_where_their_labels_say() -> None:
    data = open_data(DataConfig(source="gaussians")).train
    assert data.labels is not None
    cell = torch.stack((data.labels % 5, data.labels // 5), 1) - 2
    offset = data.values.reshape(-1, 2) - GRID_SPACING * cell
    assert abs(offset.std().item() / GRID_SD - 1) < 0.02
    assert data.labels.bincount().min() > 600


def test_moons_are_labelled_by_their_half() -> None:
    data = open_data(DataConfig(source="moons")).train
    assert data.labels is not None
    upper = data.values[data.labels == 0].reshape(-1, 2).mean(0)
    lower = data.values[data.labels == 1].reshape(-1, 2).mean(0)
    assert upper[1] > 0.7 > -0.7 > lower[1]


def test_points_have_no_picture_settings_and_need_two() -> None:
    with pytest.raises(ConfigError, match="no resolution"):
        open_data(DataConfig(source="moons", resolution=32))
    with pytest.raises(DataError, match="two are needed"):
        open_data(DataConfig(source="moons", limit=1))
