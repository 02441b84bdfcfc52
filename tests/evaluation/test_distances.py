import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from couette.errors import ShapeError
from couette.evaluation.distances import coverage, frechet, kernel, sliced


def normal(count: int, *scales: float, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, len(scales), generator=generator, dtype=torch.float64)
    return points * torch.tensor(scales, dtype=torch.float64) + shift


def whitened(count: int, dimensions: int, seed: int) -> torch.Tensor:
    """Points whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    points = normal(count, *[1.0] * dimensions, seed=seed)
    points = points - points.mean(0)
    return torch.linalg.qr(points).Q * (count - 1) ** 0.5


def test_frechet_is_the_closed_form_of_two_normals() -> None:
    a = whitened(50, 3, 0) * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([1.0, 0.0, 0.0])
    b = whitened(70, 3, 1) * torch.tensor([2.0, 2.0, 0.5]) - torch.tensor([0.0, 2.0, 0.0])
    # diagonal covariances: Σ (μ_a − μ_b)² + Σ (s_a − s_b)²
    assert frechet(a, b) == pytest.approx((1 + 4) + (1 + 0 + 2.5**2), rel=1e-10)


def by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, as it is written."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(cov_a + cov_b - 2 * root))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(12, 40), st.integers(12, 40))
def test_frechet_agrees_with_a_matrix_root(seed: int, n: int, m: int) -> None:
    mix = normal(6, *[1.0] * 6, seed=seed + 1)
    a, b = normal(n, *[1.0] * 6, seed=seed) @ mix, normal(m, *range(1, 7), shift=1.0, seed=seed + 2)
    assert frechet(a, b) == pytest.approx(by_matrix_root(a.numpy(), b.numpy()), rel=1e-7)


def test_frechet_of_fewer_points_than_dimensions() -> None:
    """Rank-deficient covariances: the same number as with the empty dimensions left out."""
    a, b = normal(8, 1, 2, 3), normal(9, 3, 1, 1, shift=1.0, seed=5)
    embed = torch.linalg.qr(normal(64, *[1.0] * 3, seed=9)).Q.T
    assert frechet(a @ embed, b @ embed) == pytest.approx(frechet(a, b), rel=1e-10)


def test_frechet_is_symmetric_and_zero_on_itself() -> None:
    a, b = normal(30, 1, 2), normal(40, 2, 1, shift=0.5, seed=1)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)
    assert frechet(a, a) == pytest.approx(0, abs=1e-12)


def test_kernel_is_the_mean_over_pairs() -> None:
    a, b = normal(5, 1, 2), normal(4, 2, 1, shift=1.0, seed=1)

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 2 + 1) ** 3)

    within_a = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    within_b = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    across = [k(x, y) for x in a for y in b]
    expected = np.mean(within_a) + np.mean(within_b) - 2 * np.mean(across)
    found = kernel(a, b)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.error is None


def test_kernel_has_no_bias_and_its_error_covers_the_truth() -> None:
    """Of 40 pairs of sets from one distribution, the mean is 0 and 9 in 10 are within 2 errors."""
    found = [
        kernel(normal(200, 1, 1, seed=2 * s), normal(200, 1, 1, seed=2 * s + 1)) for s in range(40)
    ]
    values = np.array([each.value for each in found])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    assert sum(abs(each.value) < 2 * (each.error or 0) for each in found) >= 36


def test_kernel_sees_a_difference() -> None:
    found = kernel(normal(400, 1, 1), normal(400, 1, 1, shift=0.5, seed=1))
    assert found.error is not None
    assert found.value > 5 * found.error


def test_sliced_of_a_shift_is_the_shift_over_the_root_of_the_dimension() -> None:
    points = normal(100, 1, 1)
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    # the mean of cos² over directions is 1/2; 128 of them give it to some per cent
    assert sliced(points, points + shift) == pytest.approx(5 / 2**0.5, rel=0.15)
    assert sliced(points, points) == 0


def test_sliced_sees_what_frechet_can_not() -> None:
    """A ring and a disc-like cloud of equal mean and covariance."""
    angle = torch.arange(500, dtype=torch.float64) / 500 * 2 * torch.pi
    ring = torch.stack((angle.cos(), angle.sin()), 1)
    cloud = whitened(500, 2, 0) * ring.std(0)
    assert frechet(ring, cloud) == pytest.approx(0, abs=1e-10)
    assert sliced(ring, cloud) > 0.2


@pytest.mark.parametrize("other", [torch.ones(5, 3), torch.ones(1, 2), torch.ones(5)])
def test_points_that_do_not_fit_are_refused(other: torch.Tensor) -> None:
    for distance in (frechet, kernel, sliced):
        with pytest.raises(ShapeError, match="2 points of one dimension"):
            distance(torch.ones(5, 2), other)


def test_coverage_is_of_variety_not_of_likeness() -> None:
    """As many real pictures cover nearly all, half of the space some more than half of them, one
    covers next to nothing, and samples far from everything add nothing."""
    real, more = normal(600, 1, 1, 1, seed=1), normal(600, 1, 1, 1, seed=2)
    assert coverage(more, real) == pytest.approx(1 - 2**-5, abs=0.02)
    half = more[more[:, 0] > 0]
    assert coverage(half, real) == pytest.approx(0.5, abs=0.12)
    assert coverage(more[:1].expand(600, -1), real) < 0.03
    assert coverage(torch.cat((half, half + 100)), real) == coverage(half, real)
    assert coverage(more, real[:1]) == 1
