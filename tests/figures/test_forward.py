import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.codecs import Symmetric
from couette.config import spec
from couette.contracts import Corruption
from couette.errors import InputError
from couette.figures import forward, noising, resolve
from couette.figures.noise import density, people, scaled
from couette.registry import SCHEDULES
from couette.schedules import EDM, Flow, Linear
from couette.tensors import Stream, normal

INDEX = torch.arange(3)


def clean() -> torch.Tensor:
    return forward.encoded(resolve("digits").unseen, INDEX, Symmetric())


def test_what_is_shown_is_alpha_x0_plus_sigma_eps_at_the_alpha_bar_stated() -> None:
    corruption = Corruption(Linear())
    times = forward.columns_of(corruption, 5)
    x0 = clean()
    shown = noising.forward_moments(x0, INDEX, corruption, times, seed=3)
    eps = normal(3, torch.stack((INDEX, torch.zeros(3).long()), 1), Stream.SAMPLING, (1, 16, 16))
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    for x, entry in zip(shown, (0, 249, 499, 749, 999), strict=True):
        bar = float(bars[entry])
        torch.testing.assert_close(x, bar**0.5 * x0 + (1 - bar) ** 0.5 * eps, atol=1e-5, rtol=0)
        words = forward.words(corruption.schedule, times[(0, 249, 499, 749, 999).index(entry)])
        at, stated = (line.split(" = ")[1] for line in words.split("\n"))
        assert int(at) == entry
        assert float(stated) == pytest.approx(bar, rel=0.05, abs=1e-4)


def test_columns_are_the_seeds_own() -> None:
    table = Corruption(Linear())
    entries = (forward.columns_of(table, 8) * 1000 - 1).round()
    assert entries.tolist() == torch.linspace(0, 999, 8).long().tolist()
    asked = tuple(float(k) for k in range(0, 1000, 125))
    assert (forward.columns_of(table, 2, asked) * 1000 - 1).round().tolist() == list(asked)
    toy = Corruption(Flow(), "uniform")
    torch.testing.assert_close(forward.columns_of(toy, 8).float(), torch.linspace(0, 1, 8))
    with pytest.raises(InputError, match="from t = 0 to 999, not to 1000"):
        forward.columns_of(table, 2, (1000.0,))


@given(st.sampled_from(["linear", "cosine", "edm", "flow"]), st.integers(3, 40))
def test_even_times_rise_from_clean_to_noise_in_even_angles(name: str, count: int) -> None:
    schedule = SCHEDULES.build(spec(name))
    times = forward.even_times(schedule, count)
    level = schedule.level(times)
    angles = torch.atan2(level.sigma, level.alpha)
    assert times[0] == 0 and times[-1] == 1
    steps = angles.diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("schedule", [Linear(steps=50), EDM(sigma_max=5.0), Flow()])
def test_the_chain_agrees_with_the_closed_form_in_distribution(schedule: object) -> None:
    corruption = Corruption(schedule)  # type: ignore[arg-type]
    index = torch.arange(20_000)
    x0 = torch.full((20_000, 1, 1, 1), 0.7)
    times = forward.even_times(corruption.schedule, 12)[1:]
    walked = forward.chain(x0, times, corruption, index, seed=1)
    for t, x in zip(times, walked, strict=True):
        level = corruption.schedule.level(t)
        sigma = float(level.sigma)
        assert float(x.mean()) == pytest.approx(0.7 * float(level.alpha), abs=4 * sigma / 141)
        assert float(x.std()) == pytest.approx(sigma, rel=4 / 200)


def test_a_chain_of_uniform_noises_is_refused() -> None:
    walked = forward.chain(
        clean(), torch.tensor([0.5]), Corruption(Flow(), "uniform"), INDEX, seed=0
    )
    with pytest.raises(InputError, match="not uniform"):
        next(walked)


def test_an_exploding_picture_is_fitted_and_a_bounded_one_left_alone() -> None:
    x = torch.ones(2, 1, 1, 1)
    wide = EDM().level(torch.ones(2, dtype=torch.float64))
    assert forward.fitted(x, wide).flatten().tolist() == pytest.approx([1 / 80.00625] * 2)
    bounded = Linear().level(torch.full((2,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(forward.fitted(x, bounded), x)


def test_the_toy_mix_stays_in_range_and_ends_in_uniform_noise() -> None:
    x0 = clean()
    mixed = noising.toy_mix(x0, INDEX, torch.tensor([0.0, 0.5, 1.0]), seed=0)
    assert mixed.min() >= -1 and mixed.max() <= 1
    torch.testing.assert_close(mixed[0], x0[0])
    u = forward.noise_for(INDEX, x0, 0, "uniform")
    torch.testing.assert_close(mixed[2], u[2] * 2 - 1)
    torch.testing.assert_close(mixed[1], x0[1] / 2 + (u[1] * 2 - 1) / 2)


def test_compounding_leaves_the_product_of_alpha_bars() -> None:
    schedule = Linear()
    levels = [schedule.level(t) for t in forward.columns_of(Corruption(schedule), 5)]
    index = torch.arange(30_000)
    x0 = torch.ones(30_000, 1, 1, 1)
    series, kept = noising.compounded(x0, index, levels, seed=0)
    bars = [float(level.alpha) ** 2 for level in levels]
    assert kept == pytest.approx(np.cumprod(bars))
    assert float(series[2].mean()) == pytest.approx(np.prod(bars[:3]) ** 0.5, abs=0.025)
    assert abs(float(series[2].mean()) - bars[2] ** 0.5) > 0.05


def test_the_naive_series_clips() -> None:
    series = noising.added_and_clipped(clean(), INDEX, 6, seed=0)
    torch.testing.assert_close(series[0], clean())
    assert len(series) == 6
    assert all(x.min() >= -1 and x.max() <= 1 for x in series)
    assert ((series[-1] == -1) | (series[-1] == 1)).float().mean() > 0.3


def test_random_variables_have_the_moments_stated() -> None:
    x, y = scaled(40_000, seed=0)
    np.testing.assert_allclose(y, 5 * x + 3)
    assert y.mean() == pytest.approx(3, abs=0.1)
    assert y.std() == pytest.approx(5, abs=0.08)
    axis = np.linspace(-40, 46, 20_001)
    assert np.trapezoid(density(axis, 3, 5), axis) == pytest.approx(1)
    height, weight = people(40_000, seed=0)
    slope, base = np.polyfit(height - 171, weight, 1)
    assert slope == pytest.approx(0.9, abs=0.02)
    assert base == pytest.approx(72, abs=0.2)
