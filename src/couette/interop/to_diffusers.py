"""A `unet2d` model as a pipeline that diffusers opens: configs and weights, no code of ours.

| of ours | of theirs |
|---|---|
| a table of betas, `ddpm` | `DDPMPipeline`, `DDPMScheduler` |
| a table of betas, `ddim`, `euler`, `euler-ancestral` | `DDIMPipeline`, `DDIMScheduler` |
| `flow`, `euler` | `DDPMPipeline`, whose loop fits it, `FlowMatchEulerDiscreteScheduler` |

Their pipelines tell the network no class, so that of one picture is added into the bias of the
time's embedding, which is where the network adds it; and what a model draws with otherwise, they
draw with DDIM or Euler. Whatever differs is said in a note. Nothing here imports diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from couette.config import SamplingConfig, Spec, spec
from couette.contracts import Level, Schedule
from couette.denoiser import singular
from couette.errors import InputError
from couette.interop.exports import Export, card_for
from couette.model import Model, sizes_of
from couette.networks import to_diffusers_config
from couette.networks.recalling import Recalling
from couette.registry import GRIDS, NETWORKS, SAMPLERS, SCHEDULES, THRESHOLDS, TOLD
from couette.schedules import Flow, entries
from couette.storage import json_bytes

VERSION = "0.42.1"
"""The version of diffusers whose files these are."""

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
METADATA = {"format": "pt"}
"""What diffusers and its like write into the header of their safetensors."""

_PREDICTS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
_VARIANCES = {"posterior": "fixed_small", "beta": "fixed_large", "learned": "learned_range"}
_STEPS = 50
"""Of DDIM or Euler, at least, in place of a sampler of higher order."""

_INSTEAD = "or write it with --format onnx"


class _Way(NamedTuple):
    """How the pipeline draws.

    pipeline, scheduler: their classes. settings: of the scheduler. call: how the pipeline is to be
    called. sampling: how Couette draws the same. learned: whether the network's second half, the
    variance, is read. notes: what differs from how the model draws, and what to know.
    """

    pipeline: str
    scheduler: str
    settings: dict[str, Any]
    call: dict[str, Any]
    sampling: SamplingConfig
    learned: bool
    notes: list[str]


def to_diffusers(
    model: Model, folder: Path, *, label: int | None = None, card: str | None = None
) -> Export:
    """The files of a pipeline that draws what the model draws.

    Args:
        model: its network `unet2d`, on pixels in [-1, 1].
        folder: where they will lie; for the card.
        label: the class that the pipeline draws, where the model has classes; None for "none".
        card: the run's.

    Raises:
        InputError: a model that no pipeline of diffusers can hold.
    """
    _refuse(model, label)
    schedule = model.denoiser.corruption.schedule
    way = _on_flow(model) if isinstance(schedule, Flow) else _on_table(model, schedule)
    if label is not None and model.config.sampling.guidance != 1:
        way.notes.append(
            f"The pipeline draws without guidance (the run's scale is "
            f"{model.config.sampling.guidance:g}); those of diffusers for pixels know none."
        )
    weights, unet = _network(model, label, way.learned)
    index = {
        "scheduler": ["diffusers", way.scheduler],
        "unet": ["diffusers", "UNet2DModel"],
    }
    use = _use(model, folder, way, label)
    front = "library_name: diffusers\npipeline_tag: unconditional-image-generation\n"
    files = {
        "model_index.json": _config(way.pipeline, index),
        "unet/config.json": _config("UNet2DModel", unet),
        "scheduler/scheduler_config.json": _config(way.scheduler, way.settings),
        "README.md": card_for(card, model.config, use, front),
    }
    return Export(files, {WEIGHTS: weights}, tuple(way.notes))


def _config(name: str, settings: Mapping[str, Any]) -> bytes:
    """A config as diffusers writes it."""
    return json_bytes({"_class_name": name, "_diffusers_version": VERSION, **settings})


def _refuse(model: Model, label: int | None) -> None:
    """Refuse what no pipeline can hold, whatever the schedule.

    Raises:
        InputError: with what to train instead.
    """
    config, network = model.config, model.network
    if config.network.name != "unet2d":
        raise InputError(
            f"diffusers has no network '{config.network.name}', and a pipeline brings no code: "
            f"train with --network unet2d, {_INSTEAD}."
        )
    if isinstance(network, Recalling):
        raise InputError(
            "The network is told its own last prediction, which no pipeline of diffusers does: "
            f"train without --diffusion.self-conditioning, {_INSTEAD}."
        )
    if config.codec.name != "symmetric":
        raise InputError(
            f"The pipelines of diffusers for UNet2DModel draw pixels in [-1, 1], and this model "
            f"works on what the codec '{config.codec.name}' makes of them: train with --codec "
            f"symmetric, {_INSTEAD}."
        )
    if config.diffusion.noise != "normal":
        raise InputError(
            f"The pipelines of diffusers start from normal noise, and this model was trained on "
            f"{config.diffusion.noise} noise: train with --diffusion.noise normal, {_INSTEAD}."
        )
    if label is None and "label" in model.denoiser.network.wants and not config.diffusion.drop:
        raise InputError(
            "This model never drew without a label (its diffusion.drop is 0), and a pipeline draws "
            "one class: say which with --label."
        )


def _network(
    model: Model, label: int | None, learned: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights under diffusers' names, a class folded in, and the config of UNet2DModel."""
    sizes = sizes_of(model.config)
    weights = dict(model.network.state_dict())
    rows = weights.pop("class_embedding.weight", None)
    if rows is not None:
        bias = "time_embedding.linear_2.bias"
        weights[bias] = weights[bias] + rows[-1 if label is None else label]
    outputs = sizes.channels * (2 if learned else 1)
    for name in ("conv_out.weight", "conv_out.bias"):
        weights[name] = weights[name][:outputs]
    settings = NETWORKS.check(model.config.network)
    return weights, to_diffusers_config(sizes._replace(classes=0, out=outputs), settings)


def _on_table(model: Model, schedule: Schedule) -> _Way:
    """A model on a table of betas, by DDPM or DDIM."""
    config, count = model.config.diffusion, entries(schedule)
    if count is None:
        raise InputError(
            f"diffusers has no pipeline for pixels on the schedule '{config.schedule.name}': train "
            "with --schedule cosine --parameterization v --diffusion.told index, or with "
            f"--schedule flow --parameterization flow --diffusion.told time, {_INSTEAD}."
        )
    _need_predicting(model, [*_PREDICTS])
    told = TOLD.check(config.told)
    if config.told.name != "index" or told["steps"] not in (None, count):
        raise InputError(
            f"The network is told '{config.told}', and a pipeline tells it the index into the "
            f"table's {count} entries: train with --diffusion.told index, {_INSTEAD}."
        )
    sampler, notes = _ancestor(model)
    chain = sampler.name == "ddpm"
    steps = model.config.sampling.steps
    if notes:
        steps = max(steps, _STEPS)
    steps, grid = _spaced(model.config.sampling.grid, sampler, min(steps, count), count, notes)
    at = GRIDS.bind(grid)(schedule, steps=steps)
    if singular(model.denoiser.parameterization(schedule.level(at[0]))):
        raise InputError(
            "The pipeline starts at pure noise, where a network that predicts "
            f"'{config.parameterization.name}' can't say what the picture is: train with "
            f"--parameterization v, {_INSTEAD}."
        )
    name = "DDPM" if chain else "DDIM"
    threshold = model.config.sampling.threshold
    settings = {
        "num_train_timesteps": count,
        **_betas(config.schedule, schedule),
        **_clipping(threshold),
        "prediction_type": _PREDICTS[config.parameterization.name],
        "steps_offset": GRIDS.check(grid).get("steps_offset", 0),
        "timestep_spacing": "trailing" if grid.name == "strided" else grid.name,
    }
    call: dict[str, Any] = {"num_inference_steps": steps}
    if chain:
        settings["variance_type"] = _VARIANCES[sampler.settings["variance"]]
    else:
        settings["set_alpha_to_one"] = True
        call["eta"] = sampler.settings["eta"]
        if threshold.name != "none":
            call["use_clipped_model_output"] = True
    learned = sampler.settings.get("variance") == "learned"
    same = _sampling(sampler, grid, steps, threshold)
    return _Way(f"{name}Pipeline", f"{name}Scheduler", settings, call, same, learned, notes)


def _on_flow(model: Model) -> _Way:
    """A model on the straight path, by Euler's method."""
    config, sampling = model.config.diffusion, model.config.sampling
    _need_predicting(model, ["flow"])
    shift = SCHEDULES.check(config.schedule)["shift"]
    scale = TOLD.check(config.told).get("scale", 0.0) if config.told.name == "time" else 0.0
    if shift != 1 or scale < 2 or scale != int(scale):
        raise InputError(
            f"On a flow diffusers tells the network 1000·sigma, and this one is told "
            f"'{config.told}' on the schedule '{config.schedule}': train with --schedule flow "
            f"--diffusion.told time, {_INSTEAD}."
        )
    sampler, notes = _ancestor(model)
    if sampler != spec("ddim", eta=0.0):
        notes = [f"The pipeline draws with Euler's method; the run draws with {sampling.sampler}."]
    steps = max(sampling.steps, _STEPS) if notes else sampling.steps
    if GRIDS.explicit(sampling.grid) != spec("uniform", shift=1.0):
        notes.append(f"The pipeline's steps lie evenly; the run's on the grid '{sampling.grid}'.")
    if sampling.threshold.name != "none":
        notes.append(
            f"The pipeline leaves out the threshold '{sampling.threshold.name}', which that "
            "scheduler of diffusers does not have."
        )
    notes.append(
        f"The scheduler's steps are even where there are {steps}; for another number N set "
        "shift_terminal to 1/N in scheduler/scheduler_config.json."
    )
    settings = {
        "num_train_timesteps": int(scale),
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        # Without it the last step would be of 1/1000, whatever the others are.
        "shift_terminal": 1 / steps if steps > 1 else None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    }
    same = _sampling(spec("euler"), spec("uniform"), steps, spec("none"))
    name = "FlowMatchEulerDiscreteScheduler"
    return _Way("DDPMPipeline", name, settings, {"num_inference_steps": steps}, same, False, notes)


def _need_predicting(model: Model, known: list[str]) -> None:
    """Refuse a network whose output no scheduler can read."""
    config = model.config.diffusion
    if config.parameterization.name not in known:
        raise InputError(
            f"On the schedule '{config.schedule.name}' diffusers reads networks that predict "
            f"{' or '.join(known)}, and this one predicts '{config.parameterization.name}': train "
            f"with --parameterization {known[-1]}, {_INSTEAD}."
        )


def _ancestor(model: Model) -> tuple[Spec, list[str]]:
    """The sampler of ours that the pipeline has, and a note where it is not the model's."""
    given = model.config.sampling.sampler
    own = SAMPLERS.check(given)
    if own.get("variance") == "learned" and model.config.diffusion.variance != "learned":
        raise InputError(
            f"The run draws with {given}, and its network predicts no variance: set its sampler to "
            "ddpm:variance=posterior."
        )
    if given.name == "ddpm":
        return spec("ddpm", variance=own["variance"]), []
    if given.name in ("ddim", "euler-ancestral"):
        return spec("ddim", eta=own["eta"]), []
    if given.name in ("euler", "mix"):
        return spec("ddim", eta=0.0), []
    return spec("ddim", eta=0.0), [f"The pipeline draws with DDIM; the run draws with {given}."]


def _spaced(
    grid: Spec, sampler: Spec, steps: int, count: int, notes: list[str]
) -> tuple[int, Spec]:
    """How many steps the pipeline takes and on which grid of ours they lie; notes where it is not
    the model's.

    DDIMScheduler goes down by T // N entries a step, wherever its grid has the next one. And
    DDPMScheduler leaves the last step's noise in a picture where that does not begin at entry 0.
    """
    own, even = GRIDS.check(grid), spec("strided")
    chain = sampler.name == "ddpm"
    if grid.name == "leading" and own["entry_zero"]:
        return steps, spec("leading", steps_offset=own["steps_offset"], entry_zero=True)
    whole = grid.name == "linspace" and own["whole"] and own["entry_zero"]
    if whole and chain and steps > 1:
        return steps, spec("linspace", whole=True, entry_zero=True)
    if grid.name not in ("strided", "trailing"):
        notes.append(f"The pipeline's steps lie evenly; the run's on the grid '{grid}'.")
    if chain and (sampler.settings["variance"] == "posterior" or steps == count):
        return steps, even
    fitting = [n for n in range(steps, 2 * steps + 1) if count % n == 0]
    if not chain and fitting:
        if fitting[0] != steps:
            notes.append(
                f"The pipeline takes {fitting[0]} steps, not {steps}: DDIM of diffusers wants a "
                f"number that divides the table's {count}."
            )
        return fitting[0], even
    notes.append(
        "The pipeline's steps are spaced as 'leading' and begin a little below pure noise: on "
        "others the scheduler of diffusers would not end where it should."
    )
    return steps, spec("leading", steps_offset=0, entry_zero=True)


def _betas(given: Spec, schedule: Schedule) -> dict[str, Any]:
    """The table, by diffusers' name for it where it has one, else written out."""
    settings = SCHEDULES.check(given)
    if given.name == "zero-terminal":
        within = Spec.model_validate(settings["schedule"])
        named = _named(within, SCHEDULES.check(within))
        rescale = named is not None
    else:
        named, rescale = _named(given, settings), False
    table = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    written = None if named is not None else _written(schedule)
    return {**table, **(named or {}), "trained_betas": written, "rescale_betas_zero_snr": rescale}


def _named(given: Spec, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if given.name in ("linear", "scaled-linear"):
        ends = {"beta_start": settings["beta_min"], "beta_end": settings["beta_max"]}
        return {"beta_schedule": given.name.replace("-", "_"), **ends}
    if given.name == "cosine" and (settings["offset"], settings["max_beta"]) == (0.008, 0.999):
        return {"beta_schedule": "squaredcos_cap_v2"}
    return None


def _written(schedule: Schedule) -> list[float]:
    """The betas of a variance-preserving table, from its levels alone."""
    count = entries(schedule)
    assert count is not None
    level: Level = schedule.level(torch.arange(count + 1, dtype=torch.float64) / count)
    alpha, sigma = (part.square() for part in level)
    # 1 − ᾱ_t/ᾱ_u, which is (σ_t² − σ_u²)/ᾱ_u: at low noise without cancellation.
    betas: list[float] = ((sigma[1:] - sigma[:-1]) / alpha[:-1]).clamp(max=1).tolist()
    return betas


def _clipping(threshold: Spec) -> dict[str, Any]:
    """What keeps predictions in [-1, 1]; `sample_max_value` bounds what is clipped at."""
    dynamic = threshold.name == "dynamic"
    return {
        "clip_sample": threshold.name == "static",
        "clip_sample_range": 1.0,
        "thresholding": dynamic,
        "dynamic_thresholding_ratio": THRESHOLDS.check(threshold).get("percentile", 0.995),
        "sample_max_value": 1e6 if dynamic else 1.0,
    }


def _sampling(sampler: Spec, grid: Spec, steps: int, threshold: Spec) -> SamplingConfig:
    return SamplingConfig(sampler=sampler, grid=grid, steps=steps, threshold=threshold)


def _use(model: Model, folder: Path, way: _Way, label: int | None) -> str:
    """The card's section on how to draw."""
    call = ", ".join(f"{name}={value}" for name, value in {"batch_size": 16, **way.call}.items())
    same = way.sampling
    flags = f"--sampler {same.sampler} --grid {same.grid} --steps {same.steps}"
    if same.threshold != model.config.sampling.threshold or same.threshold.name != "none":
        flags += f" --threshold {same.threshold}"
    kind = "pictures"
    if "label" in model.denoiser.network.wants:
        names = model.config.classes
        kind = "pictures of any class" if label is None else f"pictures of the class {names[label]}"
        flags += " --guidance 1" + ("" if label is None else f" --label {label}")
    notes = "".join(f"\n- {note}" for note in way.notes)
    return f"""```python
from diffusers import {way.pipeline}

pipeline = {way.pipeline}.from_pretrained({str(folder)!r})
pictures = pipeline({call}).images
```
It draws {kind}. From the same noise `couette sample RUN {flags}` draws the same.
{notes}"""
