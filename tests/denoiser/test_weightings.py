"""Weightings against their papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import couette.denoiser  # noqa: F401  (fills the registry)
from couette.config import spec
from couette.contracts import Level
from couette.registry import PARAMETERIZATIONS, SCHEDULES, WEIGHTINGS
from worlds import schedule

VP = "linear"
TIMES = st.floats(1e-3, 0.999)
POSITIVE = st.floats(0.5, 20)
ON_THE_OUTPUT = ("uniform", "uncertainty")


def level_of(name: str, t: float) -> Level:
    return schedule(name).level(torch.tensor(t, dtype=torch.float64))


def snr_of(name: str, t: float) -> float:
    level = level_of(name, t)
    return float((level.alpha / level.sigma).square())


def weight(name: str, how: str, on: str, t: float, **settings: float) -> float:
    level = level_of(on, t)
    return float(WEIGHTINGS.bind(spec(name, **settings))(level, PARAMETERIZATIONS[how](level)))


@given(TIMES, POSITIVE)
def test_min_snr(t: float, gamma: float) -> None:
    """Hang et al. 2023, sec. 3.4: the factor on each target."""
    snr = snr_of(VP, t)
    least = min(snr, gamma)
    for how, expected in {"x0": least, "eps": least / snr, "v": least / (snr + 1)}.items():
        assert weight("min-snr", how, VP, t, gamma=gamma) == pytest.approx(expected, rel=1e-9)


@given(st.sampled_from(list(SCHEDULES)), TIMES)
def test_snr_is_1_on_eps(name: str, t: float) -> None:
    assert weight("snr", "eps", name, t) == pytest.approx(1, rel=1e-9)
    assert weight("snr", "x0", name, t) == pytest.approx(snr_of(name, t), rel=1e-9)


@given(TIMES)
def test_truncated_snr(t: float) -> None:
    """Salimans & Ho 2022, sec. 4: the larger of the squared errors of x0 and of eps."""
    snr = snr_of(VP, t)
    assert weight("truncated-snr", "x0", VP, t) == pytest.approx(max(snr, 1), rel=1e-9)
    assert weight("truncated-snr", "eps", VP, t) == pytest.approx(max(1, 1 / snr), rel=1e-9)


@given(st.floats(0.05, 1), st.floats(0.1, 2))
def test_soft_min_snr_is_k_diffusions(t: float, data: float) -> None:
    """k-diffusion's `soft-min-snr`, a factor on the output of its Karras preconditioning."""
    level = level_of("edm", t)
    scalings = PARAMETERIZATIONS.bind(spec("edm", sigma_data=data))(level)
    found = WEIGHTINGS.bind(spec("soft-min-snr", gamma=data**-2))(level, scalings)
    sigma = float(level.sigma)
    expected = (sigma * data) ** 2 / (sigma**2 + data**2) ** 2
    assert float(found) == pytest.approx(expected, rel=1e-9)


@given(TIMES, POSITIVE)
def test_soft_min_snr_is_min_snr_far_from_the_edge(t: float, gamma: float) -> None:
    ratio = weight("soft-min-snr", "x0", VP, t, gamma=gamma) / weight(
        "min-snr", "x0", VP, t, gamma=gamma
    )
    near = min(snr_of(VP, t) / gamma, gamma / snr_of(VP, t))
    assert ratio == pytest.approx(1 / (1 + near), rel=1e-9)


@given(TIMES, st.floats(0.5, 3), st.floats(0.5, 2))
def test_p2(t: float, k: float, gamma: float) -> None:
    """Choi et al. 2022, eq. 8, on eps."""
    expected = (k + snr_of(VP, t)) ** -gamma
    assert weight("p2", "eps", VP, t, k=k, gamma=gamma) == pytest.approx(expected, rel=1e-9)


@given(TIMES, st.floats(-5, 5))
def test_sigmoid(t: float, bias: float) -> None:
    """Kingma & Gao 2023, on eps; and its other form, e^b·sigmoid(log SNR − b), on x0."""
    log_snr = math.log(snr_of(VP, t))
    on_eps = 1 / (1 + math.exp(log_snr - bias))
    assert weight("sigmoid", "eps", VP, t, bias=bias) == pytest.approx(on_eps, rel=1e-9)
    on_x0 = math.exp(bias) / (1 + math.exp(bias - log_snr))
    assert weight("sigmoid", "x0", VP, t, bias=bias) == pytest.approx(on_x0, rel=1e-9)


@given(st.sampled_from(list(SCHEDULES)), st.floats(0.01, 1))
def test_edm_weighting_of_the_edm_target_is_one(name: str, t: float) -> None:
    if level_of(name, t).alpha > 0:
        assert weight("edm", "edm", name, t) == pytest.approx(1, rel=1e-9)


@given(st.floats(0.05, 1))
def test_edm_weighting_is_karras_table_1(t: float) -> None:
    sigma = float(level_of("edm", t).sigma)
    expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    assert weight("edm", "x0", "edm", t) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("how", list(PARAMETERIZATIONS))
@pytest.mark.parametrize("name", ON_THE_OUTPUT)
def test_one_on_the_networks_own_output(name: str, how: str) -> None:
    assert weight(name, how, VP, 0.3) == 1


@pytest.mark.parametrize("name", [name for name in WEIGHTINGS if name not in ON_THE_OUTPUT])
@given(t=st.floats(0.01, 0.99))
def test_x0_weighs_alike_in_every_parameterization(name: str, t: float) -> None:
    """w/out² does not depend on the target."""
    level = level_of(VP, t)
    on_x0 = [
        float(WEIGHTINGS[name](level, s) / s.out.square())
        for s in (PARAMETERIZATIONS[how](level) for how in PARAMETERIZATIONS)
    ]
    assert on_x0 == pytest.approx([on_x0[0]] * len(on_x0), rel=1e-9)
