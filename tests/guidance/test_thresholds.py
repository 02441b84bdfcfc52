from __future__ import annotations

import pytest
import torch

from couette.config import spec
from couette.guidance import THRESHOLDS
from worlds import draw


def kept(name: str, low: float, high: float, **settings: float) -> torch.Tensor:
    x0 = 3 * draw(4, 1, 8, 8) + (low + high) / 2
    result: torch.Tensor = THRESHOLDS.bind(spec(name, **settings))(x0, low, high)
    return result


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", [name for name in THRESHOLDS if name != "none"])
def test_every_threshold_ends_in_the_range(name: str, limits: tuple[float, float]) -> None:
    got = kept(name, *limits)
    assert limits[0] <= float(got.min()) and float(got.max()) <= limits[1]


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_a_prediction_inside_the_range_is_left_as_it_is(name: str) -> None:
    x0 = draw(4, 1, 8, 8).tanh()
    torch.testing.assert_close(THRESHOLDS[name](x0, -1.0, 1.0), x0)


def test_dynamic_is_imagens() -> None:
    """s = max(1, percentile of |x0|), clamp to ±s, divide by s: each picture by its own."""
    x0 = 3 * draw(4, 1, 8, 8)
    x0[3] /= 100
    got = THRESHOLDS.bind(spec("dynamic", percentile=0.9))(x0, -1.0, 1.0)
    for one, each in zip(x0, got, strict=True):
        s = max(1.0, float(one.abs().flatten().quantile(0.9)))
        torch.testing.assert_close(each, one.clamp(-s, s) / s, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[3], x0[3])
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e9
    )
    torch.testing.assert_close(got, theirs._threshold_sample(x0), rtol=1e-6, atol=1e-6)


def test_dynamic_shrinks_by_no_more_than_it_may() -> None:
    """`most` is what diffusers calls sample_max_value."""
    x0 = 3 * draw(4, 1, 8, 8)
    got = THRESHOLDS.bind(spec("dynamic", percentile=0.9, most=1.5))(x0, -1.0, 1.0)
    torch.testing.assert_close(got, x0.clamp(-1.5, 1.5) / 1.5)
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5
    )
    torch.testing.assert_close(got, theirs._threshold_sample(x0), rtol=1e-6, atol=1e-6)


def test_dynamic_in_the_unit_range_is_the_same_picture() -> None:
    x0 = 3 * draw(4, 1, 8, 8)
    dynamic = THRESHOLDS["dynamic"]
    torch.testing.assert_close(
        dynamic(x0 / 2 + 0.5, 0.0, 1.0) * 2 - 1, dynamic(x0, -1.0, 1.0), rtol=1e-6, atol=1e-6
    )
