"""The same trajectories as diffusers' schedulers that step from one entry of a table to another.

Ours runs on their own table, ᾱ as float32 has it. As in test_diffusers, theirs runs as it comes and
in double.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Level, Noise, Prediction
from couette.guidance.thresholds import static
from couette.schedules import Table
from couette.schedules.tables import betas_between
from samplers.theirs import (
    BY_ENTRY,
    IDS,
    LINSPACE,
    Both,
    Predicts,
    X,
    agree,
    made,
    network,
    offered,
    scaled,
    theirs,
)
from worlds import run

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy

STEPS = 10
SPACINGS = pytest.mark.parametrize("spacing", BY_ENTRY, ids=IDS[:3])


def its_table(scheduler: Any) -> Table:
    bars = torch.cat((torch.ones(1), scheduler.alphas_cumprod)).double()
    return Table(betas_between(bars))


def noise_at(scheduler: Any, entries: Tensor) -> Tensor:
    """sigma/alpha there."""
    bar = scheduler.alphas_cumprod[entries].double()
    return ((1 - bar) / bar).sqrt()


def times_at(scheduler: Any, entries: Tensor) -> Tensor:
    """Our times of these entries; entry −1 is the clean end."""
    return (entries.double() + 1) / len(scheduler.alphas_cumprod)


def to_the_end(entries: Tensor) -> Tensor:
    return torch.cat((entries, torch.tensor([-1])))


def on_entries(
    scheduler: Any, denoise: Predicts, name: str, entries: Tensor, noise: Noise, **given: Any
) -> list[Tensor]:
    """x after each step of ours from entry to entry."""
    return [s.x for s in run(name, denoise, X, times_at(scheduler, entries), noise, **given)]


def compare(scheduler: Any, mine: list[Tensor], xs: Both, entries: Tensor) -> None:
    """x after the steps that lead to `entries`, −1 the clean end."""
    noise = noise_at(scheduler, entries.clamp(min=0)) * (entries >= 0)
    agree(scaled(noise)(mine), xs.then(scaled(noise)), noise)


def seeded(i: int) -> torch.Generator:
    """Their generator for their step i."""
    return torch.Generator().manual_seed(500 + i)


def seeds() -> Noise:
    """The same draws, step by step."""
    steps = count()
    return lambda t, u: z(next(steps))


def z(i: int) -> Tensor:
    return torch.randn(X.shape, generator=seeded(i), dtype=X.dtype)


class Learned(Predicts):
    """And how much of the larger variance there should be."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return super().__call__(x, t, cond)._replace(mix=share(x))


def share(x: Tensor) -> Tensor:
    return 0.5 + 0.4 * torch.sin(3 * x)


@SPACINGS
@pytest.mark.parametrize(
    ("variance", "theirs_"),
    [("beta", "fixed_large"), ("posterior", "fixed_small"), ("learned", "learned_range")],
)
def test_ddpm(variance: str, theirs_: str, spacing: dict[str, Any]) -> None:
    """Theirs leaves the noise out at entry 0, not in the last step: with "trailing" that one ends
    at a clean picture, and theirs adds sqrt(β) of noise to it ("fixed_large"), or what the model
    says between that and 1e-10 ("learned_range"). That is taken off here; ours adds none."""
    scheduler = made("DDPMScheduler", STEPS, clip_sample=False, variance_type=theirs_, **spacing)
    entries = scheduler.timesteps
    asked = noise_at(scheduler, entries)

    def output(x: Tensor, i: int) -> Tensor:
        eps = network(x, asked[i])
        return torch.cat((eps, 2 * share(x) - 1), 1) if variance == "learned" else eps

    xs = theirs(scheduler, X, output, given=lambda x, i: {"generator": seeded(i)})
    if entries[-1] > 0:
        beta = 1 - scheduler.alphas_cumprod[entries[-1]].double()
        xs = xs.then(lambda xs: [*xs[:-1], xs[-1] - left(variance, beta, xs[-2]) * z(STEPS - 1)])
    mine = on_entries(
        scheduler,
        Learned("eps", its_table(scheduler)),
        "ddpm",
        to_the_end(entries),
        seeds(),
        variance=variance,
    )
    compare(scheduler, mine, xs, to_the_end(entries)[1:])


def left(variance: str, beta: Tensor, x: Tensor) -> Tensor:
    """The standard deviation of what theirs adds to the clean picture."""
    small = torch.tensor(1e-20, dtype=X.dtype)
    part = {"beta": torch.ones(()), "posterior": torch.zeros(())}.get(variance, share(x))
    return ((part * beta.log() + (1 - part) * small.log()) / 2).exp()


def with_gaps_of_linspace(scheduler: Any) -> None:
    """They step down by T // N whatever the next entry is; told N − 1 steps, to the next entry."""
    scheduler.num_inference_steps -= 1


@SPACINGS
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta: float, spacing: dict[str, Any]) -> None:
    """On "linspace" theirs is told of the gaps that there are: see below."""
    scheduler = made("DDIMScheduler", STEPS, clip_sample=False, **spacing)
    entries = scheduler.timesteps
    asked = noise_at(scheduler, entries)
    xs = theirs(
        scheduler,
        X,
        lambda x, i: network(x, asked[i]),
        given=lambda x, i: {"eta": eta, "variance_noise": z(i) if eta else None},
        change=with_gaps_of_linspace if spacing == LINSPACE else lambda scheduler: None,
    )
    denoise = Predicts("eps", its_table(scheduler))
    mine = on_entries(scheduler, denoise, "ddim", to_the_end(entries), seeds(), eta=eta)
    compare(scheduler, mine, xs, to_the_end(entries)[1:])


@pytest.mark.parametrize(
    ("steps", "spacing"), [(10, "linspace"), (12, "linspace"), (12, "trailing")]
)
def test_ddim_of_theirs_steps_down_by_a_fixed_number_of_entries(steps: int, spacing: str) -> None:
    """By T // N, which is where the next step begins only if the entries lie so: here it takes x
    for one of another level. Ours ends a step where the next one begins."""
    scheduler = made("DDIMScheduler", steps, clip_sample=False, timestep_spacing=spacing)
    entries, denoise = scheduler.timesteps, Predicts("eps", its_table(scheduler))
    landed = (entries - 1000 // steps).clamp(min=-1)
    assert bool((landed[:-1] != entries[1:]).any())
    for t, u in zip(entries, landed, strict=True):
        other = theirs_once(scheduler, t, X)
        (step,) = run("ddim", denoise, X, times_at(scheduler, torch.stack((t, u))))
        assert float((step.x - other).abs().max()) <= 1e-4 * noise_at(scheduler, u.clamp(min=0))
    mine = run("ddim", denoise, X, times_at(scheduler, to_the_end(entries)))
    ends = torch.stack([step.t for step in mine])
    assert torch.equal(ends, times_at(scheduler, to_the_end(entries)[1:]))


def theirs_once(scheduler: Any, t: Tensor, x: Tensor, **given: Any) -> Tensor:
    eps = network(x, noise_at(scheduler, t))
    after: Tensor = scheduler.step(eps, t, x, **given).prev_sample
    return after


@pytest.mark.parametrize("corrected", [False, True])
def test_ddim_that_clips(corrected: bool) -> None:
    """Theirs by default clips x0 alone and keeps the eps of the prediction before; only told to, as
    GLIDE does, it takes the eps that belongs to the clipped x0. Ours always takes that one: the
    former is ours with `base`, the x0 that eps is taken from, left unclipped."""
    scheduler = made("DDIMScheduler", STEPS, **BY_ENTRY[2])
    assert scheduler.config.clip_sample and scheduler.config.clip_sample_range == 1
    entries = scheduler.timesteps
    asked = noise_at(scheduler, entries)
    xs = theirs(
        scheduler,
        X,
        lambda x, i: network(x, asked[i]),
        given=lambda x, i: {"use_clipped_model_output": True} if corrected else {},
    )
    denoise = Clipped(corrected, its_table(scheduler))
    mine = on_entries(scheduler, denoise, "ddim", to_the_end(entries), seeds())
    compare(scheduler, mine, xs, to_the_end(entries)[1:])
    assert denoise.outside > 0.1


class Clipped(Predicts):
    """Clamped to the range of pictures, by the threshold that is ours."""

    def __init__(self, corrected: bool, on: Table) -> None:
        super().__init__("eps", on)
        self.corrected, self.outside = corrected, 0.0

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        x0 = super().__call__(x, t, cond).x0
        self.outside = max(self.outside, float((x0.abs() > 1).double().mean()))
        clipped = static(x0, -1.0, 1.0)
        return Prediction(clipped) if self.corrected else Prediction(clipped, base=x0)


@pytest.mark.parametrize("spacing", BY_ENTRY[1:], ids=IDS[1:3])
def test_ddim_inverse(spacing: dict[str, Any]) -> None:
    scheduler = made("DDIMInverseScheduler", STEPS, clip_sample=False, **spacing)
    entries = scheduler.timesteps
    asked = noise_at(scheduler, entries)
    xs = theirs(scheduler, X, lambda x, i: network(x, asked[i]))
    denoise = Predicts("eps", its_table(scheduler))
    rising = torch.cat((torch.tensor([-1]), entries))
    mine = on_entries(scheduler, denoise, "ddim-inverse", rising, seeds())
    compare(scheduler, mine, xs, entries)


def test_ddim_inverse_of_theirs_has_no_linspace() -> None:
    """Ours climbs any rising times, and retraces on this grid what it came down by."""
    with pytest.raises(ValueError, match="linspace is not supported"):
        made("DDIMInverseScheduler", STEPS, **LINSPACE)
    scheduler = made("DDIMScheduler", STEPS, **LINSPACE)
    rising = times_at(scheduler, to_the_end(scheduler.timesteps)).flip(0)
    denoise = Held(X, its_table(scheduler))
    *_, up = run("ddim-inverse", denoise, X, rising)
    *_, down = run("ddim", denoise, up.x, rising.flip(0))
    assert torch.allclose(down.x, X, rtol=0, atol=1e-9)


class Held(Predicts):
    """The same eps whatever it sees, for which the way down is the way up."""

    def __init__(self, eps: Tensor, on: Table) -> None:
        super().__init__("eps", on)
        self.eps = eps.flip(0)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level: Level = self.corruption.schedule.level(t)
        return Prediction((x - level.sigma * self.eps) / level.alpha)


def with_strides_of_linspace(scheduler: Any) -> None:
    """As theirs means PNDM's entries, with the gaps that "linspace" of T = 1001 and N = 11 has."""
    scheduler.num_inference_steps -= 1
    entries = scheduler._timesteps[::-1]
    if scheduler.config.skip_prk_steps:
        return
    asked = [(e, e - 50, e - 50, e - 100) for e in entries[:3]]
    scheduler.prk_timesteps = np.array(asked).flatten()
    every = np.concatenate((scheduler.prk_timesteps, entries[3:])).astype(np.int64)
    scheduler.timesteps = torch.from_numpy(every)


PLMS, RUNGE_KUTTA = ({"skip_prk_steps": each, "set_alpha_to_one": True} for each in (True, False))


@SPACINGS
@pytest.mark.parametrize(
    ("name", "given"), [("plms", PLMS), ("pndm", RUNGE_KUTTA)], ids=["plms", "pndm"]
)
def test_pndm(name: str, given: dict[str, Any], spacing: dict[str, Any]) -> None:
    """Theirs repeats an entry for the second look of its first step, or for Runge and Kutta's looks
    in the first three. On "linspace" it is told of the gaps that there are: see below."""
    even = spacing == LINSPACE
    size = {"num_train_timesteps": 1001} if even else {}
    scheduler = made("PNDMScheduler", 11 if even else STEPS, **size, **given, **spacing)
    entries = torch.from_numpy(scheduler._timesteps.astype(np.int64)[::-1].copy())
    change: Callable[[Any], None] = with_strides_of_linspace if even else lambda scheduler: None
    change(scheduler)
    asked = noise_at(scheduler, scheduler.timesteps)
    xs = theirs(scheduler, X, lambda x, i: network(x, asked[i]))
    first = (3, 7, 11) if name == "pndm" else (1,)
    xs = xs.then(lambda xs: [*(xs[i] for i in first), *xs[first[-1] + 1 :]])
    denoise = Predicts("eps", its_table(scheduler))
    mine = on_entries(scheduler, denoise, name, to_the_end(entries), seeds())
    compare(scheduler, mine, xs, to_the_end(entries)[1:])


@pytest.mark.parametrize(
    ("given", "moves"),
    [
        (PLMS, {0: (999, 899), 1: (988, 888), 2: (888, 788), 3: (777, 677)}),
        (RUNGE_KUTTA, {0: (999, 949), 1: (999, 938), 2: (999, 888), 3: (999, 888), 12: (666, 566)}),
    ],
    ids=["plms", "pndm"],
)
def test_pndm_of_theirs_steps_beside_the_entries_of_linspace(
    given: dict[str, Any], moves: dict[int, tuple[int, int]]
) -> None:
    """The entries are 999, 888, 777, …; it steps down by T // N = 100 from each, so that the next
    step takes x for one of another level. Runge and Kutta's middle is asked for at 938 with x
    moved to 949. Ours ends a step where the next one begins, and asks of x where x is."""
    scheduler = made("PNDMScheduler", STEPS, **given, **LINSPACE)
    assert scheduler._timesteps[::-1][:4].tolist() == [999, 888, 777, 666]
    seen, step = [], scheduler._get_prev_sample

    def spy(x: Tensor, t: Any, u: Any, eps: Tensor) -> Any:
        seen.append((int(t), int(u)))
        return step(x, t, u, eps)

    scheduler._get_prev_sample = spy
    theirs(scheduler, X, lambda x, i: x)
    assert {i: seen[i] for i in moves} == moves
    if not scheduler.config.skip_prk_steps:
        assert scheduler.timesteps[1] == 938


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "DDIMInverseScheduler", "PNDMScheduler"]
)
def test_their_grids_are_of_entries_only(name: str) -> None:
    assert offered(name) == {"timestep_spacing"}
