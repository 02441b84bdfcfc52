from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import open_data
from couette.data.digits import enlarged


def test_all_digits_are_there_and_each_class_is_held_out_in_proportion() -> None:
    train, test = open_data(DataConfig())
    assert test is not None and test.labels is not None and train.labels is not None
    assert len(train) + len(test) == 1797
    assert train.sizes == Sizes(1, 16, 16, 10)
    assert train.classes == tuple("0123456789")
    assert test.labels.bincount().tolist() == pytest.approx([18] * 10, abs=1)
    assert train.notes[0] == "1,617 pictures, 16×16 gray, 10 classes"


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_enlarged_digits_average_back_to_the_originals(factor: int) -> None:
    originals = torch.from_numpy(load_digits().images).float() / 16
    back = functional.avg_pool2d(enlarged(originals, factor).float() / 255, factor)
    assert (back - originals).abs().mean() < 0.004
    assert (back - originals).abs().max() < 0.06


def test_the_background_stays_black() -> None:
    lone = torch.zeros(1, 8, 8)
    lone[0, 3, 3] = 1
    big = enlarged(lone, 2)[0]
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[6:8, 6:8] = False
    assert big[~outside].min() > 230
    assert big[outside].max() < 13


@pytest.mark.parametrize("size", [8, 20, (16, 24), (32, 12)])
def test_any_size_and_colour(size: int | tuple[int, int]) -> None:
    train = open_data(DataConfig(resolution=size, color="rgb")).train
    height, width = size if isinstance(size, tuple) else (size, size)
    assert train.sizes == Sizes(3, height, width, 10)
    assert torch.equal(train.values[..., 0], train.values[..., 2])
    if size == 8:
        first = torch.from_numpy(load_digits().images[0]).float() * (255 / 16)
        assert torch.equal(train.values[0, :, :, 0], first.round().byte())
