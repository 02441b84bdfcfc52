from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from couette.config import spec
from couette.contracts import Cond, Corruption, Prediction
from couette.errors import InputError
from couette.guidance import ClassifierFree, Terms, guide
from guidance.labelled_mixture import LABEL, NONE, POINTS, at, mixture, terms
from worlds import draw, schedule

T = torch.tensor(0.5, dtype=torch.float64)


class ByLabel:
    """x0 = x·label + t."""

    corruption = Corruption(schedule("flow"))

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        label = cond["label"].double()[:, None]
        return Prediction(x * label + (t[:, None] if t.ndim else t))


GIVEN = {"label": torch.tensor([1, 2, 3])}
NOTHING = {"label": torch.tensor([7, 7, 7])}


@given(st.floats(-3, 20).filter(lambda scale: scale != 1))
def test_is_the_formula(scale: float) -> None:
    """x0_u + λ(x0_c − x0_u), which is ε_u + λ(ε_c − ε_u) at any level."""
    denoise, x = ByLabel(), draw(3, 4)
    got = guide(denoise, Terms(scale, NOTHING), [spec("cfg")])(x, T, GIVEN)
    given, nothing = ByLabel()(x, T, GIVEN).x0, ByLabel()(x, T, NOTHING).x0
    assert torch.allclose(got.x0, nothing + scale * (given - nothing), rtol=1e-12, atol=1e-12)
    level = denoise.corruption.schedule.level(T)

    def eps(x0: Tensor) -> Tensor:
        return (x - level.alpha * x0) / level.sigma

    mixed = eps(nothing) + scale * (eps(given) - eps(nothing))
    assert torch.allclose(eps(got.x0), mixed, rtol=1e-9, atol=1e-9)


def test_a_time_per_row() -> None:
    x, t = draw(3, 4), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    whole = ClassifierFree(ByLabel(), Terms(3, NOTHING))(x, t, GIVEN).x0
    for i in range(3):
        label, none = ({"label": each["label"][i : i + 1]} for each in (GIVEN, NOTHING))
        one = ClassifierFree(ByLabel(), Terms(3, none))(x[i : i + 1], t[i], label).x0
        assert torch.allclose(one, whole[i : i + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
def test_cfg_plus_plus_puts_the_unconditional_noise_back(scale: float) -> None:
    """Its scale is the paper's λ, so 1 is the conditional picture on unconditional noise."""
    world = mixture("linear")
    t = at(1.0, world.corruption)
    got = guide(world, terms(scale, world), [spec("cfg++")])(POINTS, t, LABEL)
    good, bad = (world(POINTS, t, cond).x0 for cond in (LABEL, NONE))
    torch.testing.assert_close(got.x0, bad + scale * (good - bad), rtol=1e-13, atol=1e-13)
    assert got.base is not None and torch.equal(got.base, bad)


@pytest.mark.parametrize("scale", [-0.1, 1.5, 7.5])
def test_cfg_plus_plus_refuses_the_scales_of_cfg(scale: float) -> None:
    world = mixture()
    with pytest.raises(InputError, match="between 0 and 1"):
        guide(world, terms(scale, world), [spec("cfg++")])
