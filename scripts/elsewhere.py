"""What other programs call the methods, and what they have that this project has not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from couette.registry import GRIDS, SAMPLERS, SCHEDULES
from markup import bullets, table, wrap

COMBINED = (
    "LMS Karras",
    "DPM2 Karras",
    "DPM2 a Karras",
    "DPM++ 2S a Karras",
    "DPM++ 2M Karras",
    "DPM++ SDE Karras",
    "DPM++ 2M SDE Karras",
    "DPM++ 2M SDE Exponential",
    "DPM++ 2M SDE Heun Karras",
    "DPM++ 2M SDE Heun Exponential",
    "DPM++ 3M SDE Karras",
    "DPM++ 3M SDE Exponential",
)
"""Labels of the web UI that name a sampler and a grid at once."""

NOT_HERE: Mapping[str, str] = {
    "AysSchedules": "times for given models: write them out, `--grid given:times=(…)`",
    "BlockRefinementScheduler": "edits text block by block; `maskgit` lifts masks by confidence",
    "CMStochasticIterativeScheduler, ConsistencyDecoderScheduler, FlowMapEulerDiscreteScheduler, "
    "FlowMatchLCMScheduler, HeliosDMDScheduler, LCM, LCMScheduler, PiflowScheduler, SCMScheduler, "
    "TCDScheduler, lcm": "for models distilled to few steps, which predict no posterior mean",
    "DPMSolverMultistepInverseScheduler": "of inversions there is `ddim-inverse` only",
    "EntropyBoundScheduler": "`maskgit` lifts a fixed share a step, whatever the entropy",
    "FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)": "draws all its noise anew each "
    "step, as distilled models are sampled",
    "HeliosScheduler": "samples a pyramid of resolutions, for the one model made for it",
    "LTXEulerAncestralRFScheduler": "splits old noise and new by sigma alone; `euler-ancestral` "
    "does so by sigma/alpha, as the reverse chain does",
    "RFD4ProteinaScheduler": "for proteins, at a lowered temperature",
    "RePaintScheduler": "fills in parts of a picture: an editor, not a sampler",
    "ScoreSdeVeScheduler": "`langevin` has its corrector, with an ancestral step before it",
    "ScoreSdeVpScheduler": "Euler and Maruyama's method; `ddpm` draws from a step's posterior",
    "VQDiffusionScheduler": "masks and chance in one chain; `categorical` has either",
    "DPM adaptive, dpm_adaptive, sample_dpm_adaptive": "`dopri5` and `bosh3` choose their steps",
    "DPM fast, dpm_fast, sample_dpm_fast": "its steps of changing order; use `dpmpp-3m`",
    "DDIM CFG++, euler_cfg_pp, dpmpp_2m_cfg_pp and their like": "CFG++ goes with any sampler here: "
    "`--guider cfg++`",
    "exp_heun_2_x0, heunpp2, seeds_2, seeds_3": "further one-step methods; use `dpmpp-2s` or "
    "`dpmpp-sde`",
    "gradient_estimation": "Euler's method pushed on by the last change of its slope; use `lms`",
    "ipndm_v": "iPNDM with weights for uneven steps, as `lms` has them",
    "res_multistep": "the line in λ through two predictions; use `dpmpp-2m`",
    "sa_solver_pece": "`sa-solver` keeps its prediction (PEC), which costs half as much",
}
"""Names of samplers that stand for nothing here, and why or what to take instead."""

NO_SUCH_GRID: Mapping[str, str] = {
    "Align Your Steps": "times for given models: write them out, `given:times=(…)`",
    "Beta": "AUTOMATIC1111 takes quantiles of sigma, as diffusers does: `beta-sigmas`",
    "DDIM": "as a schedule type it is ComfyUI's ddim_uniform: `leading:steps_offset=1`",
    "KL Optimal, kl_optimal": "even in arctan(sigma); write its times out, `given:times=(…)`",
    "Karras Exponential": "a blend of the two; use either",
    "Uniform": "AUTOMATIC1111's is even in a table's entries: `linspace:whole=false`",
    "linear_quadratic": "for one model of video; write its times out, `given:times=(…)`",
    "use_flow_sigmas": "even in a flow's t: `uniform`, its flow_shift as `uniform:shift=…`",
}
"""The same for time grids."""

NO_SUCH_SCHEDULE: Mapping[str, str] = {
    "exp": "ᾱ = e^(−12t), in one scheduler of diffusers; write its table out, `alpha-bars`",
    "laplace": "diffusers takes alpha for ᾱ there; `laplace` is the paper's",
}
"""The same for values of diffusers' beta_schedule."""

WRITTEN = {
    "rescale_betas_zero_snr": "zero-terminal:schedule=…",
    "trained_betas": "betas:values=(…)",
}
"""Schedules that are nothing without a setting."""

SPACINGS = ("leading", "linspace", "trailing")
"""diffusers' values of timestep_spacing."""


def elsewhere() -> Iterator[str]:
    """The chapter of names that other programs have."""
    yield "## Names elsewhere"
    yield wrap(
        "What diffusers, k-diffusion and the web UIs call these methods, and what to type here. "
        "Asked for by such a name, `couette sample` says the same. Other settings of theirs, "
        "and their defaults where they are no part of the method, are not copied."
    )
    yield "### Names of samplers"
    asked = {each: SAMPLERS.here(each) for each in COMBINED}
    asked |= {each: (here,) for each, here in SAMPLERS.theirs().items()}
    yield names_table(
        {
            each: " ".join(("--sampler", shell(part), *flags))
            for each, (part, *flags) in asked.items()
        }
    )
    yield "Without a counterpart here:"
    yield bullets(NOT_HERE)
    yield "### Names of time grids"
    yield names_table({each: f"--grid {shell(here)}" for each, here in GRIDS.theirs().items()})
    yield "With another meaning, or without a counterpart here:"
    yield bullets(NO_SUCH_GRID)
    yield "### Names of schedules"
    yield wrap(
        "diffusers' values of `beta_schedule`, and its options that change a table: "
        "`beta_start` and `beta_end` are `beta_min` and `beta_max` here, `num_train_timesteps` is "
        "`steps`."
    )
    schedules = SCHEDULES.theirs()
    yield table(
        ("elsewhere", "here"),
        [(f"`{each}`", f"`--schedule {WRITTEN.get(each, schedules[each])}`") for each in schedules],
    )
    yield bullets(NO_SUCH_SCHEDULE)


def names_table(names: Mapping[str, str]) -> str:
    rows = sorted((whose(each), each.casefold(), each, here) for each, here in names.items())
    return table(
        ("whose", "name", "here"),
        [(owner, f"`{each}`", f"`{here}`") for owner, _, each, here in rows],
    )


def whose(name: str) -> str:
    """Whose spelling a name is in."""
    if "Scheduler" in name or name.startswith("use_") or name in SPACINGS:
        return "diffusers"
    if name.startswith(("sample_", "get_sigmas_")):
        return "k-diffusion"
    return "AUTOMATIC1111" if name != name.lower() else "ComfyUI"


def shell(text: str) -> str:
    """As a shell takes it: brackets and the like in quotes."""
    return f"'{text}'" if re.search(r"[()+*;&|<> ]", text) else text
