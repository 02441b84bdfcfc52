from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from couette.contracts import Cond, Corruption, Prediction
from couette.errors import InputError
from couette.guidance import ClassifierFree, classifier_free
from worlds import draw, schedule

T = torch.tensor(0.5, dtype=torch.float64)


class ByLabel:
    """x0 = x·label + t, and a note of every call's rows."""

    corruption = Corruption(schedule("flow"))

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        self.rows.append(x.shape[0])
        label = cond["label"].double()[:, None]
        return Prediction(x * label + (t[:, None] if t.ndim else t))


LABEL = {"label": torch.tensor([1, 2, 3])}
NONE = {"label": torch.tensor([7, 7, 7])}


def test_scale_one_is_off() -> None:
    denoise = ByLabel()
    assert classifier_free(denoise, 1, NONE) is denoise
    assert classifier_free(denoise, 1.0, {}) is denoise


@given(st.floats(-3, 20).filter(lambda scale: scale != 1))
def test_is_the_formula(scale: float) -> None:
    """x0_u + λ(x0_c − x0_u), which is ε_u + λ(ε_c − ε_u) at any level."""
    denoise, x = ByLabel(), draw(3, 4)
    got = classifier_free(denoise, scale, NONE)(x, T, LABEL)
    given, nothing = ByLabel()(x, T, LABEL).x0, ByLabel()(x, T, NONE).x0
    assert torch.allclose(got.x0, nothing + scale * (given - nothing), rtol=1e-12, atol=1e-12)
    level = denoise.corruption.schedule.level(T)

    def eps(x0: Tensor) -> Tensor:
        return (x - level.alpha * x0) / level.sigma

    mixed = eps(nothing) + scale * (eps(given) - eps(nothing))
    assert torch.allclose(eps(got.x0), mixed, rtol=1e-9, atol=1e-9)


def test_scale_zero_is_the_unconditional_answer() -> None:
    x = draw(3, 4)
    got = classifier_free(ByLabel(), 0, NONE)(x, T, LABEL)
    assert torch.equal(got.x0, ByLabel()(x, T, NONE).x0)


def test_both_answers_come_from_one_call_of_twice_the_rows() -> None:
    denoise = ByLabel()
    classifier_free(denoise, 2, NONE)(draw(3, 4), T, LABEL)
    assert denoise.rows == [6]


def test_a_time_per_row() -> None:
    x, t = draw(3, 4), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    whole = ClassifierFree(ByLabel(), 3, NONE)(x, t, LABEL).x0
    for i in range(3):
        label, none = ({"label": each["label"][i : i + 1]} for each in (LABEL, NONE))
        one = ClassifierFree(ByLabel(), 3, none)(x[i : i + 1], t[i], label).x0
        assert torch.allclose(one, whole[i : i + 1], rtol=1e-12, atol=1e-12)


def test_keeps_the_corruption() -> None:
    denoise = ByLabel()
    assert classifier_free(denoise, 2, NONE).corruption is denoise.corruption


def test_a_model_that_is_told_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="trained with labels"):
        classifier_free(ByLabel(), 2, {})
