"""The same steps as diffusers' schedulers, with the same noise and one smooth prediction.

Their tables are float32: trajectories agree to 1e-4 of the noise level. A denoiser is asked for x0
at the level where theirs stands, and told to them as the eps that they expect.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Corruption, Schedule, Step
from worlds import Crooked, draw, numbered, run, schedule

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SHAPE = (2, 1, 3, 3)
LINEAR = schedule("linear")
DENOISE = Crooked(Corruption(LINEAR))
START = draw(*SHAPE, seed=77)


def times_of(sigmas: Tensor, on: Schedule = LINEAR) -> Tensor:
    """Our times where sigma/alpha is what theirs is."""
    return on.time(-2 * sigmas.double().log())


def scaled_x0(scaled: Tensor, sigma: Tensor) -> Tensor:
    """What is predicted for their x/alpha."""
    t = times_of(sigma)
    return DENOISE(scaled * LINEAR.level(t).alpha, t, {}).x0


def scaled_eps(scaled: Tensor, sigma: Tensor) -> Tensor:
    return (scaled - scaled_x0(scaled, sigma)) / sigma


def generated(seed: int = 5) -> Any:
    """Noise as their randn_tensor draws it from a generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda t, u: torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def agree(ours: Step, theirs: Tensor) -> None:
    assert torch.allclose(ours.x, theirs.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 30])
def test_euler_ancestral(steps: int, spacing: str) -> None:
    theirs = diffusers.EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    generator = torch.Generator().manual_seed(5)
    times = times_of(theirs.sigmas)
    out = run("euler-ancestral", DENOISE, START, times, generated())
    scaled = START / LINEAR.level(times[0]).alpha
    for i, t in enumerate(theirs.timesteps):
        theirs.scale_model_input(scaled, t)
        eps = scaled_eps(scaled, theirs.sigmas[i].double())
        scaled = theirs.step(eps, t, scaled, generator=generator).prev_sample
        agree(out[i], scaled * LINEAR.level(times[i + 1]).alpha)


@pytest.mark.parametrize(
    "spacing",
    [
        "linspace",
        pytest.param("leading", marks=pytest.mark.slow),
        pytest.param("trailing", marks=pytest.mark.slow),
    ],
)
def test_dpm2_ancestral(spacing: str) -> None:
    theirs = diffusers.KDPM2AncestralDiscreteScheduler(**BETAS, timestep_spacing=spacing)
    theirs.set_timesteps(12)
    theirs.set_begin_index(0)
    generator = torch.Generator().manual_seed(5)
    times = times_of(torch.cat((theirs.sigmas[:1], theirs.sigmas[1:-2:2])))
    out = run("dpm2-ancestral", DENOISE, START, times, generated())
    scaled, done = START / LINEAR.level(times[0]).alpha, 0
    for k, t in enumerate(theirs.timesteps):
        sigma = theirs.sigmas[k] if theirs.state_in_first_order else theirs.sigmas_interpol[k - 1]
        eps = scaled_eps(scaled, sigma.double())
        scaled = theirs.step(eps, t, scaled, generator=generator).prev_sample
        if theirs.state_in_first_order or k == len(theirs.timesteps) - 1:
            agree(out[done], scaled * LINEAR.level(times[done + 1]).alpha)
            done += 1
    assert done == 12


def multistep_of(order: int, form: str) -> Any:
    theirs = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        algorithm_type="sde-dpmsolver++",
        solver_order=order,
        solver_type=form,
        lower_order_final=False,
    )
    theirs.set_timesteps(12)
    return theirs


def plain_eps(x: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = LINEAR.level(t)
    return (x - alpha * DENOISE(x, t, {}).x0) / sigma


@pytest.mark.parametrize("form", ["midpoint", "heun"])
def test_dpmpp_2m_sde(form: str) -> None:
    theirs, noise, x = multistep_of(2, form), numbered(*SHAPE), START
    times = times_of(theirs.sigmas)
    out = run("dpmpp-2m-sde", DENOISE, START, times, numbered(*SHAPE), form=form)
    for i, k in enumerate(theirs.timesteps):
        z = noise(times[i], times[i + 1])
        x = theirs.step(plain_eps(x.double(), times[i]), k, x, variance_noise=z).prev_sample
        agree(out[i], x)


def test_dpmpp_3m_sde_takes_the_parabola_as_it_is() -> None:
    """The mean of ((λ − λ_a)/h)² over the step is 1 − 2·m/H, H = 2h and m = 1 − (1 − e^(−H))/H.

    k-diffusion takes half of it, 1/2 − m/H; diffusers' SDE subtracts that 1/2 where it is to be
    added and takes −1/2 − m/H, near −1 in short steps. With that put right, they agree with ours.
    """
    theirs, noise, x = multistep_of(3, "midpoint"), numbered(*SHAPE), START
    times = times_of(theirs.sigmas)
    out = run("dpmpp-3m-sde", DENOISE, START, times, numbered(*SHAPE))
    alpha, sigma = LINEAR.level(times)
    lam = alpha.log() - sigma.log()
    for i, k in enumerate(theirs.timesteps):
        z = noise(times[i], times[i + 1])
        x = theirs.step(plain_eps(x.double(), times[i]), k, x, variance_noise=z).prev_sample
        if 2 <= i < 11:
            m2, m1, m0 = theirs.model_outputs
            h, h0, h1 = lam[i + 1] - lam[i], lam[i] - lam[i - 1], lam[i - 1] - lam[i - 2]
            bend = ((m0 - m1) / h0 - (m1 - m2) / h1) / (h0 + h1) * h**2
            m = 1 - (1 - (-2 * h).exp()) / (2 * h)
            x = x + alpha[i + 1] * ((1 - m / h) - (-m / (2 * h) - 0.5)) * bend
        agree(out[i], x)


def test_dpmpp_sde(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their noise comes from a Brownian tree whose clock is sigma/alpha; here it is given the path
    of the SDE itself, two independent halves a step, and so the tree's package isn't needed."""
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

    theirs = DPMSolverSDEScheduler(**BETAS)
    theirs.set_timesteps(12)
    theirs.set_begin_index(0)
    times = times_of(torch.cat((theirs.sigmas[:1], theirs.sigmas[1::2])))
    out = run("dpmpp-sde", DENOISE, START, times, numbered(*SHAPE))
    halves, begun = numbered(*SHAPE), []

    def path(sigma: Tensor, following: Tensor) -> Tensor:
        if len(begun) % 2 == 0:
            begun.append(halves(sigma, following))
            return begun[-1]
        q = following / sigma
        begun.append(halves(sigma, following))
        return (q.sqrt() * begun[-2] + begun[-1]) / (1 + q).sqrt()

    theirs.noise_sampler = path
    scaled, done = START / LINEAR.level(times[0]).alpha, 0
    for k, t in enumerate(theirs.timesteps):
        sigma = theirs.sigmas[k].double()
        if not theirs.state_in_first_order:
            sigma = (theirs.sigmas[k - 1].double() * theirs.sigmas[k]).sqrt()
        scaled = theirs.step(scaled_eps(scaled, sigma), t, scaled).prev_sample
        if theirs.state_in_first_order or k == len(theirs.timesteps) - 1:
            agree(out[done], scaled * LINEAR.level(times[done + 1]).alpha)
            done += 1
    assert done == 12


@pytest.mark.parametrize(("predictor", "corrector"), [(1, 1), (2, 2), (3, 3), (3, 4), (4, 4)])
def test_sa_solver(predictor: int, corrector: int) -> None:
    """Theirs replaces the integral of the line, wherever the order is 2, by its leading term h²/2
    "to slightly improve" few steps; that isn't in the paper, is infinite on a step to sigma = 0
    (they stop at the first entry), and is taken back here."""
    theirs = diffusers.SASolverScheduler(
        **BETAS,
        predictor_order=predictor,
        corrector_order=corrector,
        tau_func=lambda t: torch.tensor(0.7),
        lower_order_final=False,
    )
    theirs.set_timesteps(12)
    given = theirs.get_coefficients_fn

    def without(order: int, start: Tensor, end: Tensor, lams: list[Tensor], tau: Tensor) -> Any:
        found = given(order, start, end, lams, tau)
        if order == 2:
            c, h = 1 + tau**2, end - start
            line = (c * h - 1 + (-c * h).exp()) / c**2
            added = (c * end).exp() * (h**2 / 2 - line) / (lams[0] - lams[1])
            return [found[0] - added, found[1] + added]
        return found

    theirs.get_coefficients_fn = without
    generator, x, times = torch.Generator().manual_seed(5), START, times_of(theirs.sigmas)
    settings = {"tau": 0.7, "predictor": predictor, "corrector": corrector, "low": 0, "high": 1e9}
    out = run("sa-solver", DENOISE, START, times, generated(), **settings)
    for i, k in enumerate(theirs.timesteps):
        x = theirs.step(plain_eps(x, times[i]), k, x, generator=generator).prev_sample
        agree(out[i], x)


def test_edm_euler_with_churn() -> None:
    """Their step adds its noise after the network has been asked; here the network is asked of the
    noised picture at the raised level, as in Karras' algorithm 2."""
    theirs = diffusers.EDMEulerScheduler()
    theirs.set_timesteps(12)
    on = schedule("edm:sigma_max=200")
    denoise, times = Crooked(Corruption(on)), times_of(theirs.sigmas, on)
    churn = {"s_churn": 5.0, "s_noise": 1.01}
    x = START * 80
    out = run("euler-churn", denoise, x, times, generated(), **churn, s_min=0.05, s_max=50.0)
    generator, noise = torch.Generator().manual_seed(5), generated()
    for i, t in enumerate(theirs.timesteps):
        theirs.scale_model_input(x, t)
        sigma, noised = theirs.sigmas[i].double(), x
        if 0.05 <= sigma <= 50:
            raised = sigma * (1 + min(5 / 12, 2**0.5 - 1))
            noised = x + 1.01 * (raised**2 - sigma**2).sqrt() * noise(t, t)
            sigma = raised
        x = theirs.step(
            torch.zeros_like(x),
            t,
            x,
            **churn,
            s_tmin=0.05,
            s_tmax=50.0,
            generator=generator,
            pred_original_sample=denoise(noised, times_of(sigma, on), {}).x0,
        ).prev_sample
        assert torch.allclose(out[i].x, x, rtol=0, atol=1e-4 * max(1.0, float(sigma)))
