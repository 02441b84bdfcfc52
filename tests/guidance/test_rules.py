"""Each rule against its paper's formula written out, and against diffusers' where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.config import spec
from couette.contracts import Cond, Corruption, Denoise, Prediction
from couette.errors import InputError
from couette.guidance import Terms, guide
from couette.samplers import move
from guidance.labelled_mixture import LABEL, NONE, POINTS, at, mixture, terms
from worlds import draw, schedule

SHAPE = (3, 2, 4, 4)


class Told:
    """Answers with the given pictures: the first ones told, the second ones untold."""

    def __init__(self, answers: Sequence[tuple[Tensor, Tensor]], text: str = "flow") -> None:
        self.answers, self.corruption = iter(answers), Corruption(schedule(text))

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return Prediction(torch.cat(next(self.answers)))


def ruled(denoise: Denoise, scale: float, name: str, **settings: Any) -> Denoise:
    rows = {"label": torch.zeros(3, dtype=torch.int64)}
    return guide(denoise, Terms(scale, rows), [spec(name, **settings)])


COND = {"label": torch.ones(3, dtype=torch.int64)}
HALF = torch.tensor(0.5, dtype=torch.float64)


def pairs(count: int) -> list[tuple[Tensor, Tensor]]:
    return [(draw(*SHAPE, seed=2 * i), draw(*SHAPE, seed=2 * i + 1)) for i in range(count)]


class TestApg:
    @pytest.mark.parametrize("momentum", [0.0, -0.75, 0.5])
    @pytest.mark.parametrize("norm", [None, 2.5])
    @pytest.mark.parametrize("eta", [0.0, 0.3])
    def test_is_algorithm_one(self, momentum: float, norm: float | None, eta: float) -> None:
        answers = pairs(4)
        settings = {} if norm is None else {"norm": norm}
        guided = ruled(Told(answers), 5, "apg", momentum=momentum, eta=eta, **settings)
        running = torch.zeros(SHAPE, dtype=torch.float64)
        for good, bad in answers:
            running = (good - bad) + momentum * running
            change = running.flatten(1)
            if norm is not None:
                change = (
                    change * torch.minimum(torch.tensor(1.0), norm / change.norm(dim=1))[:, None]
                )
            unit = good.flatten(1) / good.flatten(1).norm(dim=1)[:, None]
            along = (change * unit).sum(1)[:, None] * unit
            expected = good.flatten(1) + 4 * (change - along + eta * along)
            got = guided(draw(*SHAPE), HALF, COND).x0.flatten(1)
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

    def test_matches_diffusers(self) -> None:
        """Its default starts from the unconditional answer, unlike the paper; in its
        "original formulation" it adds scale·update to the conditional: told scale − 1."""
        theirs = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
        answers = pairs(3)
        guided = ruled(Told(answers), 5, "apg", momentum=-0.5, norm=2.5, eta=0.2)
        memory = theirs.MomentumBuffer(-0.5)
        for good, bad in answers:
            expected = theirs.normalized_guidance(good, bad, 4.0, memory, 0.2, 2.5, True)
            got = guided(draw(*SHAPE), HALF, COND).x0
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

    def test_every_run_starts_without_memory(self) -> None:
        (good, bad), again = pairs(2)
        once = ruled(Told([(good, bad), again]), 5, "apg", momentum=-0.75)
        first = once(draw(*SHAPE), HALF, COND).x0
        once(draw(*SHAPE), HALF, COND)
        anew = ruled(Told([(good, bad)]), 5, "apg", momentum=-0.75)
        assert torch.equal(anew(draw(*SHAPE), HALF, COND).x0, first)

    def test_a_black_picture_has_no_direction(self) -> None:
        zero = torch.zeros(SHAPE, dtype=torch.float64)
        got = ruled(Told([(zero, draw(*SHAPE))]), 3, "apg")(draw(*SHAPE), HALF, COND).x0
        torch.testing.assert_close(got, -2 * draw(*SHAPE))


class TestRescale:
    @pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
    def test_brings_the_spread_to_the_conditionals(self, phi: float) -> None:
        good, bad = pairs(1)[0]
        got = ruled(Told([(good, bad)]), 6, "rescale", phi=phi)(draw(*SHAPE), HALF, COND).x0
        x0 = bad + 6 * (good - bad)
        ratio = (good.flatten(1).std(1) / x0.flatten(1).std(1)).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(got, phi * x0 * ratio + (1 - phi) * x0, rtol=1e-12, atol=1e-12)
        theirs = pytest.importorskip("diffusers.guiders.guider_utils")
        torch.testing.assert_close(got, theirs.rescale_noise_cfg(x0, good, phi))

    def test_a_picture_of_one_value_stays_as_it_is(self) -> None:
        flat = torch.full(SHAPE, 0.25, dtype=torch.float64)
        got = ruled(Told([(flat, flat)]), 6, "rescale")(draw(*SHAPE), HALF, COND).x0
        assert torch.equal(got, flat)


class TestInterval:
    @pytest.mark.parametrize("text", ["edm", "flow", "linear", "cosine"])
    def test_guides_above_low_and_up_to_high(self, text: str) -> None:
        world = mixture(text)
        guided = guide(world, terms(3, world), [spec("interval", low=0.3, high=2.0)])
        for noise, inside in ((0.29, False), (0.31, True), (1.99, True), (2.01, False)):
            t = at(noise, world.corruption)
            world.rows.clear()
            got = guided(POINTS, t, LABEL).x0
            assert world.rows == ([10] if inside else [5])
            good, bad = (world(POINTS, t, cond).x0 for cond in (LABEL, NONE))
            expected = bad + 3 * (good - bad) if inside else good
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)

    def test_high_is_inside_and_low_is_not(self) -> None:
        world = mixture("edm")
        t = torch.tensor(0.5, dtype=torch.float64)
        noise = float(world.corruption.schedule.level(t).sigma)
        for low, high, rows in ((noise, 9e9, 5), (0.0, noise, 10)):
            world.rows.clear()
            guide(world, terms(3, world), [spec("interval", low=low, high=high)])(POINTS, t, LABEL)
            assert world.rows == [rows]

    @pytest.mark.parametrize("method", ["cfg", "cfg++"])
    def test_rows_of_their_own_times(self, method: str) -> None:
        world = mixture("flow")
        chain = [spec(method), spec("interval", low=0.3, high=2.0)]
        ranged = torch.stack([at(noise, world.corruption) for noise in (0.1, 0.5, 1.0, 1.9, 5.0)])

        class ByRow:
            """The mixture at a time per row."""

            corruption = world.corruption

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                rows = zip(x, t.expand(len(x)), cond["label"], strict=True)
                return Prediction(
                    torch.cat([world(x[None], t, {"label": y[None]}).x0 for x, t, y in rows])
                )

        whole = guide(ByRow(), terms(0.6, world), chain)(POINTS, ranged, LABEL)
        for i, t in enumerate(ranged):
            one = guide(ByRow(), terms(0.6, world), chain)(POINTS, t, LABEL)
            torch.testing.assert_close(whole.x0[i], one.x0[i], rtol=1e-12, atol=1e-12)
            if whole.base is not None:
                base = one.x0 if one.base is None else one.base
                torch.testing.assert_close(whole.base[i], base[i], rtol=1e-12, atol=1e-12)

    def test_an_empty_one_is_refused(self) -> None:
        world = mixture()
        with pytest.raises(InputError, match="low below high"):
            guide(world, terms(3, world), [spec("interval", low=2.0, high=0.3)])


class TestZeroStar:
    @pytest.mark.parametrize("time", [0.2, 0.5, 0.9])
    def test_is_the_papers_velocity_on_the_flow(self, time: float) -> None:
        """v = (x − x0)/t; v = s·v_u + w·(v_c − s·v_u) with s = ⟨v_c, v_u⟩/‖v_u‖²."""
        good, bad = pairs(1)[0]
        x, t = draw(*SHAPE, seed=9), torch.tensor(time, dtype=torch.float64)
        got = ruled(Told([(good, bad)]), 4, "cfg-zero", still=0)(x, t, COND).x0
        v_c, v_u = ((x - x0) / time for x0 in (good, bad))
        s = (v_c * v_u).flatten(1).sum(1) / v_u.flatten(1).square().sum(1)
        v_u = s.reshape(-1, 1, 1, 1) * v_u
        torch.testing.assert_close((x - got) / time, v_u + 4 * (v_c - v_u), rtol=1e-7, atol=1e-7)

    def test_matches_diffusers(self) -> None:
        theirs = pytest.importorskip("diffusers.guiders.classifier_free_zero_star_guidance")
        good, bad = (each.float() for each in pairs(1)[0])
        x = draw(*SHAPE, seed=9).float()
        got = ruled(Told([(good, bad)]), 4, "cfg-zero", still=0)(x, HALF, COND).x0
        v_c, v_u = ((x - x0) / 0.5 for x0 in (good, bad))
        s = theirs.cfg_zero_star_scale(v_c.flatten(1), v_u.flatten(1)).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(
            (x - got) / 0.5, s * v_u + 4 * (v_c - s * v_u), rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("text", ["flow", "linear", "edm"])
    def test_stands_still_at_the_first_times(self, text: str) -> None:
        """No velocity: x/(alpha + sigma) stays, without a pass. A time asked twice counts once."""
        world = mixture(text)
        guided = guide(world, terms(3, world), [spec("cfg-zero", still=2)])
        levels = []
        for noise, passes in ((5.0, 0), (3.0, 0), (3.0, 0), (1.0, 1)):
            t = at(noise, world.corruption)
            levels.append(world.corruption.schedule.level(t))
            world.rows.clear()
            got = guided(POINTS, t, LABEL).x0
            assert len(world.rows) == passes
            if not passes:
                z = POINTS / (levels[-1].alpha + levels[-1].sigma)
                torch.testing.assert_close(got, z, rtol=1e-13, atol=1e-13)
        a, b = levels[0], levels[1]
        x = move(POINTS, Prediction(POINTS / (a.alpha + a.sigma)), a, b)
        torch.testing.assert_close(x / (b.alpha + b.sigma), POINTS / (a.alpha + a.sigma))
