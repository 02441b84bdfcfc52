"""The closed forms against matrices, and the bound against the entropy of what is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from couette.config import STATES
from couette.contracts import Level
from couette.discrete import (
    KINDS,
    Odds,
    between,
    drawn,
    rates,
    reverse_rates,
    step_bound,
    transitions,
)
from couette.discrete.kinds import cross_entropy
from discrete.joint import Joint, f64, full, mixture

K = 4
EYE = torch.eye(K, dtype=torch.float64)
Times = st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)).map(sorted)


def levels(*times: float) -> list[Level]:
    schedule = mixture("flow")
    return [schedule.level(f64(t)[0]) for t in times]


def as_row(odds: Odds) -> Tensor:
    return torch.cat((odds.states, odds.mask), 1)


def places(noise: str) -> Tensor:
    """Every x_t of one position, one-hot, (K or K + 1, K): with [MASK] where there is one."""
    masks = int(KINDS[noise].end(K)[-1])
    return torch.eye(K + masks, dtype=torch.float64)[:, :K]


def test_every_noise_of_states_has_its_kind() -> None:
    assert set(KINDS) == set(STATES)


@pytest.mark.parametrize("noise", list(KINDS))
class TestEveryKind:
    @given(t=st.floats(0, 1))
    def test_transitions_are_distributions(self, noise: str, t: float) -> None:
        matrix = transitions(KINDS[noise], K, levels(t)[0])
        assert matrix.shape == (K + 1, K + 1)
        assert bool((matrix >= 0).all())
        assert torch.allclose(matrix.sum(1), torch.ones(K + 1).double(), rtol=0, atol=1e-14)

    @settings(max_examples=20)
    @given(times=Times)
    def test_chapman_kolmogorov(self, noise: str, times: list[float]) -> None:
        """Step by step is the closed form: q(x_s | x_0) then q(x_t | x_s) is q(x_t | x_0)."""
        s, t = levels(*times)
        kind = KINDS[noise]
        stretch = transitions(kind, K, between(s, t))
        whole = transitions(kind, K, s) @ stretch
        assert torch.allclose(whole, transitions(kind, K, t), rtol=0, atol=1e-13)

    def test_many_small_steps_are_the_closed_form(self, noise: str) -> None:
        kind, grid = KINDS[noise], levels(*np.linspace(0, 0.9, 1001))
        odds = full(EYE)
        for s, t in pairwise(grid):
            odds = odds @ transitions(kind, K, between(s, t))
        assert torch.allclose(odds, as_row(kind.after(EYE, grid[-1])), rtol=0, atol=1e-12)

    def test_rates_generate_the_transitions(self, noise: str) -> None:
        """Q(t) = exp(∫R): R is constant in −log alpha. And dQ/dt = Q·R."""
        kind, schedule = KINDS[noise], mixture("flow")
        t = f64(0.6)[0]
        level, fall = schedule.level(t), schedule.fall(t)
        generator = rates(kind, K, level, fall)
        assert torch.allclose(generator.sum(1), torch.zeros(K + 1).double(), atol=1e-14)
        spent = -level.alpha.log() / (fall / level.alpha)
        assert torch.allclose(torch.matrix_exp(generator * spent), transitions(kind, K, level))
        h = 1e-6
        before, after = (transitions(kind, K, schedule.level(t + d)) for d in (-h, h))
        slope = transitions(kind, K, level) @ generator
        assert torch.allclose((after - before) / (2 * h), slope, atol=1e-8)

    def test_reverse_rates_undo_the_rates(self, noise: str) -> None:
        """Carried back by its reverse rates, q falls back along the path it came."""
        kind, schedule = KINDS[noise], mixture("flow")
        data = f64(0.1, 0.2, 0.3, 0.4)
        t, h = f64(0.6)[0], 1e-6
        level, fall = schedule.level(t), schedule.fall(t)
        q = full(data[None])[0] @ transitions(kind, K, level)
        back = reverse_rates(kind, data, level, fall)
        assert torch.allclose(back.sum(1), torch.zeros(K + 1).double(), atol=1e-12)
        assert bool((back - torch.diag(back.diag()) >= 0).all())
        before, after = (schedule.level(t + d) for d in (-h, h))
        slope = full(data[None])[0] @ (transitions(kind, K, after) - transitions(kind, K, before))
        assert torch.allclose(q @ back, -slope / (2 * h), atol=1e-8)
        if noise == "absorbing":  # a mask becomes y at the rate of lifting times p(x_0 = y)
            assert torch.allclose(back[K, :K], data * fall / level.sigma)

    @settings(max_examples=20)
    @given(times=Times)
    def test_after_is_a_row_of_the_matrix(self, noise: str, times: list[float]) -> None:
        s, t = levels(*times)
        for level in (t, between(s, t)):
            rows = full(places(noise)) @ transitions(KINDS[noise], K, level)
            assert torch.allclose(as_row(KINDS[noise].after(places(noise), level)), rows)

    @settings(max_examples=20)
    @given(times=Times)
    def test_the_posterior_is_bayes(self, noise: str, times: list[float]) -> None:
        """q(x_s | x_t, x_0) = q(x_t | x_s)·q(x_s | x_0)/q(x_t | x_0), for every x_0 and x_t."""
        s, t = levels(*times)
        if float(t.sigma - s.sigma) < 1e-6:
            return
        kind = KINDS[noise]
        first, second, whole = (transitions(kind, K, each) for each in (s, between(s, t), t))
        for x0 in range(K):
            for x in places(noise):
                here = int(full(x[None]).argmax())
                if whole[x0, here] == 0:
                    continue
                bayes = second[:, here] * first[x0] / whole[x0, here]
                posterior = as_row(kind.back(x[None], EYE[x0][None], t, s))[0]
                assert torch.allclose(posterior, bayes, rtol=0, atol=1e-9)

    @settings(max_examples=20)
    @given(times=Times, seed=st.integers(0, 100))
    def test_back_carries_the_marginals(self, noise: str, times: list[float], seed: int) -> None:
        """With the exact p(x_0 | x_t) of one position, q(x_t) is carried to q(x_s): any stretch."""
        s, t = levels(*times)
        kind = KINDS[noise]
        data = torch.rand(K, generator=torch.Generator().manual_seed(seed)).double()
        data = data / data.sum()
        clean = full(data[None])[0]
        chain = transitions(kind, K, t)
        x = places(noise)
        q = clean @ chain
        odds = torch.zeros(K + 1).double()
        for each in x:
            here = int(full(each[None]).argmax())
            if q[here] > 1e-12:
                p = data * chain[:K, here] / q[here]
                belief = kind.belief(each[None], p.log()[None])
                assert torch.allclose(belief[0], p, atol=1e-12)
                odds += q[here] * as_row(kind.back(each[None], belief, t, s))[0]
        assert torch.allclose(odds, clean @ transitions(kind, K, s), rtol=0, atol=1e-9)

    def test_the_rate_bound_is_the_limit_of_steps(self, noise: str) -> None:
        kind, schedule = KINDS[noise], mixture("flow")
        t, h = f64(0.4)[0], 1e-5
        now, before = schedule.level(t), schedule.level(t - h)
        log_p = torch.randn(K, generator=torch.Generator().manual_seed(3)).double().log_softmax(0)
        for x in places(noise):
            x0 = x if noise == "absorbing" and x.any() else EYE[1]
            given = x[None], x0[None], log_p[None]
            step = step_bound(kind, x[None], x0[None], kind.belief(x[None], log_p[None]).log(),
                              now, before) / h  # fmt: skip
            limit = kind.rate_bound(*given, now, schedule.fall(t))
            assert float(step) == pytest.approx(float(limit), rel=1e-3, abs=1e-5)

    def test_the_rate_bound_is_that_of_the_rates(self, noise: str) -> None:
        """Campbell et al. 2022: Σ R̂_p − R̂ + R̂·log(R̂/R̂_p) with the chain's own matrices."""
        kind, schedule = KINDS[noise], mixture("flow")
        t = f64(0.7)[0]
        level, fall = schedule.level(t), schedule.fall(t)
        chain, forward = transitions(kind, K, level), rates(kind, K, level, fall)
        p = torch.rand(K, generator=torch.Generator().manual_seed(3)).double().log_softmax(0).exp()
        for x0 in range(K):
            for x in places(noise):
                here = int(full(x[None]).argmax())
                if chain[x0, here] == 0:
                    continue
                p_here = kind.belief(x[None], p.log()[None])[0]
                ratios = torch.where(chain[:K, [here]] > 0, chain[:K] / chain[:K, [here]], 0)
                mean = p_here @ ratios
                bound = 0.0
                for y in range(K + 1):
                    r, r_p = forward[y, here] * ratios[x0, y], forward[y, here] * mean[y]
                    if y != here and r_p > 0:
                        bound += float(r_p - r + torch.special.xlogy(r, r / r_p))
                found = kind.rate_bound(x[None], EYE[x0][None], p.log()[None], level, fall)
                assert float(found) == pytest.approx(bound, rel=1e-9, abs=1e-12)

    @pytest.mark.parametrize("positions", [1, 2])
    def test_the_bound_of_the_exact_denoiser_is_the_entropy(
        self, noise: str, positions: int
    ) -> None:
        """In continuous time, to 1e-5 nats, by enumerating x_0 and x_t and quadrature over t."""
        world = Joint(noise, positions=positions)
        x, schedule = world.noised(), world.corruption.schedule
        nodes, weights = np.polynomial.legendre.leggauss(48)
        bound = 0.0
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            t = f64(node**3)[0]  # crowded at 0, where the integrand is like log t
            log_p = world(x, t, {}).x0
            joint = world.likelihood(x, t) * world.table
            for c, x0 in enumerate(world.all):
                seen = joint[:, c] > 0
                given = x[seen], x0.expand(int(seen.sum()), -1, -1, -1), log_p[seen]
                each = world.kind.rate_bound(*given, schedule.level(t), schedule.fall(t))
                bound += weight * 3 * node**2 * float(joint[seen, c] @ each.flatten(1).mean(1))
        assert bound == pytest.approx(world.entropy, abs=1e-5)

    def test_the_start_is_drawn_from_the_end_of_the_chain(self, noise: str) -> None:
        u = ((torch.arange(1000) + 0.5) / 1000)[:, None, None].expand(-1, K, 1)
        share = full(KINDS[noise].start(u)).mean(0).flatten().double()
        assert torch.allclose(share, KINDS[noise].end(K), rtol=0, atol=2e-3)

    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**31))
    def test_keeps_dtype_and_shape(self, noise: str, seed: int) -> None:
        kind, (s, t) = KINDS[noise], levels(0.3, 0.8)
        u = torch.rand(2, K, 3, 5, generator=torch.Generator().manual_seed(seed))
        x = drawn(kind.after(kind.start(u), t), u)
        back = drawn(kind.back(x, kind.belief(x, torch.zeros_like(u)), t, s), u)
        assert x.shape == back.shape == u.shape
        assert x.dtype == back.dtype == torch.float32
        assert set(back.unique().tolist()) <= {0.0, 1.0}


class TestDrawn:
    @given(
        weights=st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda w: sum(w) > 0.01),
        mask=st.floats(0, 1),
    )
    def test_every_state_comes_as_often_as_it_should(
        self, weights: list[float], mask: float
    ) -> None:
        n = 4000
        odds = Odds(f64(*weights).expand(n, -1), f64(mask).expand(n, 1))
        share = full(drawn(odds, ((torch.arange(n).double() + 0.5) / n)[:, None])).mean(0)
        wanted = torch.cat((f64(*weights) / sum(weights) * (1 - mask), f64(mask)))
        assert torch.allclose(share, wanted, rtol=0, atol=1.5 / n)

    @given(st.lists(st.floats(2**-20, 1, width=32), min_size=2, max_size=300))
    def test_nothing_is_left_masked_by_rounding(self, weights: list[float]) -> None:
        odds = Odds(torch.tensor([weights]), torch.zeros(1, 1))
        for u in (0.0, 1 - 2**-24):
            assert float(drawn(odds, torch.tensor([[u]])).sum()) == 1


def test_austins_shortcut_is_not_the_mixture_of_posteriors() -> None:
    """Plugging p for x_0 into the posterior and normalising, as D3PM does, is another chain."""
    kind, (s, t) = KINDS["multinomial"], levels(0.2, 0.9)
    p = f64(0.7, 0.1, 0.1, 0.1)[None]
    x = EYE[:1]
    chain = transitions(kind, K, between(s, t))[:K, :K]
    plugged = chain[:, 0] * kind.after(p, s).states[0]
    mixture = sum(p[0, k] * kind.back(x, EYE[k][None], t, s).states[0] for k in range(K))
    assert torch.allclose(kind.back(x, p, t, s).states[0], mixture, atol=1e-12)
    assert float((plugged / plugged.sum() - mixture).abs().max()) > 0.05


def test_absorbing_weighs_the_cross_entropy_by_the_rate_of_lifting() -> None:
    """Sahoo et al. 2024, sec. 3.4, on their log-linear schedule: 1/t on what is masked."""
    schedule, t = mixture("flow"), f64(0.25)[0]
    log_p = f64(0.5, 0.25, 0.125, 0.125).log()[None]
    found = [
        float(
            KINDS["absorbing"].rate_bound(
                x[None], EYE[2][None], log_p, schedule.level(t), schedule.fall(t)
            )
        )
        for x in (torch.zeros(K).double(), EYE[2])
    ]
    assert found == pytest.approx([math.log(8) / 0.25, 0])
    assert float(cross_entropy(EYE[2][None], log_p)) == pytest.approx(math.log(8))
