"""The same trajectories as diffusers 0.42, with a fixed network, from the same start.

The network is a smooth function of x of unit power and of log(sigma/alpha); our grid is the
one that their scheduler chose, read off its sigmas. Differences are relative to the power of x.
Where their result is not the method's, the test says why and holds ours to what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Prediction
from couette.schedules import Table, ratio
from worlds import draw, run, schedule

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy

SINGLE, DOUBLE = 1e-4, 1e-6
"""Where they compute in float32, and where in the dtype of x."""
X = draw(2, 3, 4, 4, seed=77)


def network(x: Tensor, noise: Tensor) -> Tensor:
    """Its output for x of unit power where sigma/alpha is `noise`."""
    return 0.6 * torch.tanh(1.3 * x + 0.2 * noise.double().log()) + 0.6 * x


class Predicts:
    """That network as a denoiser, by what its output means.

    eps: the noise. velocity: eps − x0, of x as it is. edm: F of Karras et al. 2022, sigma_data 0.5.
    """

    def __init__(self, kind: str, on: str) -> None:
        self.kind, self.corruption = kind, Corruption(schedule(on))

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level = self.corruption.schedule.level(t)
        if self.kind == "velocity":
            return Prediction(x - level.sigma * network(x, level.sigma))
        if self.kind == "edm":
            return Prediction(edm(x, level.sigma))
        eps = network(x / torch.hypot(*level), ratio(level))
        return Prediction((x - level.sigma * eps) / level.alpha)

    def times(self, noise: Tensor) -> Tensor:
        """Where sigma/alpha is `noise`."""
        return self.corruption.schedule.time(-2 * noise.double().log())


def edm(x: Tensor, sigma: Tensor) -> Tensor:
    power = (sigma.square() + 0.25).sqrt()
    return 0.25 / power.square() * x + 0.5 * sigma / power * network(x / power, sigma)


def ours(denoise: Predicts, name: str, noise: Tensor, **given: Any) -> list[Tensor]:
    """x/alpha after each step of ours on a grid of sigma/alpha, begun at X of x_t's power."""
    s, times = denoise.corruption.schedule, denoise.times(noise)
    out = run(name, denoise, X * torch.hypot(*s.level(times[0])), times, **given)
    return [step.x / s.level(u).alpha for u, step in zip(times[1:], out, strict=True)]


def theirs(
    scheduler: Any, x: Tensor, output: Callable[[Tensor, int], Tensor], last: int | None = None
) -> list[Tensor]:
    """x after each of their evaluations up to `last`, for the network's output at x in the i-th."""
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
    scheduler.is_scale_input_called = True
    xs = []
    for i, t in enumerate(scheduler.timesteps[:last]):
        x = scheduler.step(output(x, i), t, x).prev_sample
        xs.append(x)
    return xs


def agree(mine: list[Tensor], other: list[Tensor], noise: Tensor, within: float) -> None:
    """Step by step, where alpha is 1 and sigma `noise`."""
    assert len(mine) == len(other) == len(noise)
    for a, b, S in zip(mine, other, noise.double(), strict=True):
        assert float((a - b).abs().max()) <= within * float((1 + S.square()).sqrt())


def scaled(xs: list[Tensor], noise: Tensor) -> list[Tensor]:
    """x/alpha of a variance-preserving x."""
    return [x * (1 + S.double().square()).sqrt() for x, S in zip(xs, noise, strict=True)]


def made(name: str, steps: int, **given: Any) -> Any:
    scheduler = getattr(diffusers, name)(**given)
    scheduler.set_timesteps(steps)
    return scheduler


STEPS = 12
LINSPACE, LEADING, TRAILING = (
    {"timestep_spacing": each} for each in ("linspace", "leading", "trailing")
)
KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
SPACINGS = pytest.mark.parametrize(
    "spacing",
    [LINSPACE, LEADING, TRAILING, KARRAS, EXPONENTIAL],
    ids=["linspace", "leading", "trailing", "karras", "exponential"],
)


@SPACINGS
@pytest.mark.parametrize(
    ("name", "scheduler", "within"),
    [
        ("euler", "EulerDiscreteScheduler", SINGLE),
        ("lms", "LMSDiscreteScheduler", SINGLE),
        ("heun", "HeunDiscreteScheduler", DOUBLE),
        ("dpm2", "KDPM2DiscreteScheduler", DOUBLE),
    ],
)
def test_where_alpha_is_1(
    name: str, scheduler: str, within: float, spacing: dict[str, Any]
) -> None:
    """Their x is x/alpha, ours is x: the same run, in (x/alpha, sigma/alpha)."""
    made_ = made(scheduler, STEPS, **spacing)
    asked, twice = made_.sigmas.clone(), name in ("heun", "dpm2")
    if name == "dpm2":
        asked[1::2] = made_.sigmas_interpol[1::2]

    def eps(x: Tensor, i: int) -> Tensor:
        return network(x / (1 + asked[i].double().square()).sqrt(), asked[i])

    between = made_.sigmas[1 : 2 * STEPS - 1 : 2] if twice else made_.sigmas[1:-1]
    noise = torch.cat((made_.sigmas[:1], between, torch.zeros(1)))
    xs = theirs(made_, X * (1 + noise[0].double().square()).sqrt(), eps)
    xs = [*xs[1::2], xs[-1]] if twice else xs
    agree(ours(Predicts("eps", "linear"), name, noise), xs, noise[1:], within)


class Whole(diffusers.DPMSolverMultistepScheduler):
    """Theirs adds the parabola's second term, (r² − …)·D2, with half its weight, which leaves a
    method of second order; this adds the other half."""

    def multistep_dpm_solver_third_order_update(self, outputs, *args, sample, **given):  # type: ignore[no-untyped-def]
        half = super().multistep_dpm_solver_third_order_update(outputs, sample=sample, **given)
        S = [self.sigmas[self.step_index + k].double() for k in (1, 0, -1, -2)]
        end, *lams = (-each.log() for each in S)
        h, r0, r1 = end - lams[0], lams[0] - lams[1], lams[1] - lams[2]
        m0, m1, m2 = reversed(outputs)
        D2 = ((m0 - m1) / r0 - (m1 - m2) / r1) * h.square() / (r0 + r1)
        alpha = (1 + S[0].square()).rsqrt()
        return half - alpha * (((-h).exp() - 1 + h) / h.square() - 0.5) * D2


@SPACINGS
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_multistep(order: int, spacing: dict[str, Any]) -> None:
    """Orders 2M and 3M; with few steps theirs would lower the order before the end, too."""
    kind = {2: diffusers.DPMSolverMultistepScheduler, 3: Whole}[order]
    scheduler = kind(solver_order=order, lower_order_final=False, **spacing)
    scheduler.set_timesteps(STEPS)
    preserving("dpmpp-2m" if order == 2 else "dpmpp-3m", scheduler)


def preserving(name: str, scheduler: Any, last: int | None = None, **given: Any) -> None:
    """The run of a scheduler whose x preserves variance, up to its step `last`."""
    noise = scheduler.sigmas

    def eps(x: Tensor, i: int) -> Tensor:
        return network(x, noise[i])

    xs = scaled(theirs(scheduler, X, eps, last), noise[1:][:last])
    mine = ours(Predicts("eps", "linear"), name, noise, **given)[:last]
    agree(mine, xs, noise[1:][:last], SINGLE)


@SPACINGS
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc(order: int, variant: str, spacing: dict[str, Any]) -> None:
    """Up to the last step, to sigma = 0. Theirs takes it only with "bh2" and with the order
    lowered, for 3 in the step before, too; ours keeps it until that step."""
    settings = {"solver_order": order, "solver_type": variant, "lower_order_final": False}
    scheduler = made("UniPCMultistepScheduler", STEPS, **settings, **spacing)
    preserving("unipc", scheduler, STEPS - 1, order=order, variant=variant)


def test_unipc_to_the_end() -> None:
    preserving("unipc", made("UniPCMultistepScheduler", STEPS, solver_order=2))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    "spacing", [LINSPACE, LEADING, TRAILING], ids=["linspace", "leading", "trailing"]
)
def test_deis(order: int, spacing: dict[str, Any]) -> None:
    """Theirs ends at the table's first sigma, not at 0; with other spacings it repeats the last."""
    settings = {"solver_order": order, "lower_order_final": False, **spacing}
    preserving("deis", made("DEISMultistepScheduler", STEPS, **settings), order=order)


def test_dpm_solver_singlestep() -> None:
    """Two of their steps are one of ours, where the step between lies halfway in log sigma."""
    scheduler = made("DPMSolverSinglestepScheduler", STEPS, lower_order_final=True, **EXPONENTIAL)
    noise = scheduler.sigmas
    xs = scaled(theirs(scheduler, X, lambda x, i: network(x, noise[i])), noise[1:])
    ends = noise[: STEPS - 1 : 2]
    mine = ours(Predicts("eps", "linear"), "dpmpp-2s", ends)
    agree(mine, xs[1 : STEPS - 2 : 2], ends[1:], SINGLE)


@pytest.mark.parametrize("spacing", [LEADING, TRAILING], ids=["leading", "trailing"])
@pytest.mark.parametrize(
    ("name", "scheduler", "given", "ends"),
    [
        ("ddim", "DDIMScheduler", {"clip_sample": False}, range(10)),
        ("plms", "PNDMScheduler", {"skip_prk_steps": True}, range(1, 11)),
        ("pndm", "PNDMScheduler", {"skip_prk_steps": False}, (3, 7, *range(11, 19))),
    ],
)
def test_on_entries_of_the_table(
    name: str, scheduler: str, given: dict[str, Any], ends: Sequence[int], spacing: dict[str, Any]
) -> None:
    """Their evaluations that end a step. The spacing "linspace" is not theirs to take: they step
    down by T/N whatever the next entry is. PNDM repeats an entry for the second look of its first
    step, or all but the first for Runge-Kutta's."""
    made_ = made(scheduler, 10, set_alpha_to_one=True, **given, **spacing)
    asked = entry_noise(made_, made_.timesteps)
    entries = made_.timesteps.unique().flip(0)
    steps = entries[(entries[:1] - entries) % 100 == 0]
    noise = torch.cat((entry_noise(made_, steps), torch.zeros(1)))
    xs = theirs(made_, X, lambda x, i: network(x, asked[i]))
    mine = ours(Predicts("eps", "linear"), name, noise)
    agree(mine, scaled([xs[i] for i in ends], noise[1:]), noise[1:], SINGLE)


def entry_noise(scheduler: Any, entries: Tensor) -> Tensor:
    bar = scheduler.alphas_cumprod[entries].double()
    return ((1 - bar) / bar).sqrt()


@pytest.mark.parametrize("spacing", [LEADING, TRAILING], ids=["leading", "trailing"])
def test_ddim_inverse(spacing: dict[str, Any]) -> None:
    scheduler = made("DDIMInverseScheduler", 10, clip_sample=False, **spacing)
    asked = entry_noise(scheduler, scheduler.timesteps)
    noise = torch.cat((torch.zeros(1), asked))
    xs = theirs(scheduler, X, lambda x, i: network(x, asked[i]))
    mine = ours(Predicts("eps", "linear"), "ddim-inverse", noise)
    agree(mine, scaled(xs, asked), asked, SINGLE)


def test_ipndm() -> None:
    """Theirs predicts v on levels of its own; here on a table's, from below pure noise."""
    s = schedule("linear")
    assert isinstance(s, Table)
    level = s.level(torch.linspace(0.6, 0, STEPS + 1, dtype=torch.float64))
    scheduler = made("IPNDMScheduler", STEPS, trained_betas=level.sigma.tolist())
    alpha, sigma = scheduler.alphas.double(), scheduler.betas.double()

    def v(x: Tensor, i: int) -> Tensor:
        return (network(x, sigma[i] / alpha[i]) - sigma[i] * x) / alpha[i]

    noise = sigma / alpha
    xs = scaled(theirs(scheduler, X, v), noise[1:])
    agree(ours(Predicts("eps", "linear"), "ipndm", noise), xs, noise[1:], SINGLE)


def test_ipndm_from_pure_noise() -> None:
    """Their first step divides by alpha = 0 and so forgets what was predicted, whatever it was;
    ours moves along it, to alpha_u·x0 + sigma_u·x."""
    firsts = []
    for value in (-5.0, 5.0):
        scheduler = made("IPNDMScheduler", STEPS)
        firsts.append(theirs(scheduler, X, lambda x, i, v=value: torch.full_like(x, v))[0])
    assert torch.equal(*firsts)
    times = torch.tensor([1.0, 0.7], dtype=torch.float64)
    denoise = Predicts("velocity", "flow")
    (step,) = run("ipndm", denoise, X, times)
    x0 = X - network(X, times[0])
    assert torch.allclose(step.x, 0.3 * x0 + 0.7 * X, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("euler", "EDMEulerScheduler"), ("dpmpp-2m", "EDMDPMSolverMultistepScheduler")],
)
@pytest.mark.parametrize("shape", ["karras", "exponential"])
def test_edm(name: str, scheduler: str, shape: str) -> None:
    made_ = made(scheduler, STEPS, sigma_schedule=shape)
    noise = made_.sigmas

    def F(x: Tensor, i: int) -> Tensor:
        return network(x / (noise[i].double().square() + 0.25).sqrt(), noise[i])

    xs = theirs(made_, X * (1 + noise[0].double().square()).sqrt(), F)
    agree(ours(Predicts("edm", "edm"), name, noise), xs, noise[1:], SINGLE)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift: float) -> None:
    """From alpha = 0."""
    scheduler = made("FlowMatchEulerDiscreteScheduler", STEPS, shift=shift)
    sigma = scheduler.sigmas.double()
    xs = theirs(scheduler, X, lambda x, i: network(x, sigma[i]))
    noise = sigma / (1 - sigma)
    xs = [x / (1 - each) for x, each in zip(xs, sigma[1:], strict=True)]
    agree(ours(Predicts("velocity", "flow"), "euler", noise), xs, noise[1:], SINGLE)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_heun(shift: float) -> None:
    """Theirs takes the mean of two velocities, dx/dt = eps − x0, which is Karras' method as if
    alpha were 1: ours on such a schedule. On the flow's own, ours takes the mean of two eps."""
    scheduler = made("FlowMatchHeunDiscreteScheduler", STEPS, shift=shift)
    asked = scheduler.sigmas.double()
    sigma = torch.cat((asked[:1], asked[1:-1:2], asked[-1:]))
    xs = theirs(scheduler, X * (1 + sigma[0].square()).sqrt(), lambda x, i: network(x, asked[i]))
    mine = ours(Predicts("velocity", "edm"), "heun", sigma)
    agree(mine, [*xs[1::2], xs[-1]], sigma[1:], SINGLE)
