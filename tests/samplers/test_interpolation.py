from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.samplers.adams import BASHFORTH
from couette.samplers.interpolation import adams, exponential, exponential_adams, weights


@given(
    st.lists(st.integers(-40, 10), min_size=1, max_size=5, unique=True),
    st.lists(st.floats(-2, 2), min_size=5, max_size=5),
)
def test_polynomials_have_their_mean(nodes: list[int], coefficients: list[float]) -> None:
    """Of a degree below the number of nodes, whatever the moments say a power's mean is."""
    r = torch.tensor(nodes, dtype=torch.float64) / 10
    moments = torch.tensor([1.0, 0.6, 0.4, 0.3, 0.2], dtype=torch.float64)[: len(nodes)]
    c = torch.tensor(coefficients, dtype=torch.float64)[: len(nodes)]
    values = (c[:, None] * r ** torch.arange(len(nodes))[:, None]).sum(0)
    w = weights(r, moments)
    assert float(w.sum()) == pytest.approx(1, abs=1e-6)
    assert float((w * values).sum()) == pytest.approx(float((c * moments).sum()), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_even_steps_have_the_weights_of_bashforth(count: int) -> None:
    past = [torch.tensor(5.0 - k, dtype=torch.float64) for k in range(count)]
    got = adams(past, torch.tensor(6.0, dtype=torch.float64))
    assert torch.allclose(got, BASHFORTH[count - 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("h", [1e-9, 1e-3, 0.3, 2.0, 9.0, 25.0, -1e-9, -1e-3, -0.3, -2.0, -9.0])
def test_exponential_moments(h: float) -> None:
    """Their recurrence is i·m_{i−1} = (e^h − J_i·h)/J_0 for J_i = ∫ r^i·e^{hr} dr, and m_1 has a
    closed form; both lose all digits at small h, where m_i is 1/(i + 1) + h·i/(2(i + 1)(i + 2))."""
    m = exponential(torch.tensor(h, dtype=torch.float64), 4).tolist()
    if abs(h) <= 1e-3:
        expected = [1 / (i + 1) + h * i / (2 * (i + 1) * (i + 2)) for i in range(4)]
        assert m == pytest.approx(expected, abs=1e-6)
    else:
        assert m[0] == pytest.approx(1, abs=1e-13)
        assert m[1] == pytest.approx(-1 / math.expm1(-h) - 1 / h, rel=1e-11)
        top = -h / math.expm1(-h)
        for i in (1, 2, 3):
            assert h * m[i] == pytest.approx(top - i * m[i - 1], rel=1e-9, abs=1e-9)


def test_two_points_integrate_a_line_in_the_logarithm() -> None:
    """f = 3 + 2·log s over s in [1.5, 4], known at s = 1.2 and 1.5."""
    s = torch.tensor([1.5, 1.2, 4.0], dtype=torch.float64)
    w = exponential_adams(list(s[:2].log()), s[0].log(), s[2].log())
    mean = 3 + 2 * float((s[2] * (s[2].log() - 1) - s[0] * (s[0].log() - 1)) / (s[2] - s[0]))
    assert float((w * (3 + 2 * s[:2].log())).sum()) == pytest.approx(mean, rel=1e-12)
