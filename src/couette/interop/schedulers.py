"""A scheduler's config as ours: what x_t is, what the network predicts and is told, and its grid.

Of a scheduler only what describes the model is taken, not how it steps: that is the sampler's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from couette.config import Spec, spec
from couette.errors import CheckpointError

_LEADING = {"timestep_spacing": "leading"}
_CLIPPED = {**_LEADING, "clip_sample": True}
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012}
_TABLES: dict[str, dict[str, Any]] = {
    "DDPMScheduler": _CLIPPED,
    "DDPMParallelScheduler": _CLIPPED,
    "DDIMScheduler": _CLIPPED,
    "DDIMParallelScheduler": _CLIPPED,
    "PNDMScheduler": _LEADING,
    "LMSDiscreteScheduler": {},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": _LATENT,
    "KDPM2DiscreteScheduler": _LATENT,
    "KDPM2AncestralDiscreteScheduler": _LATENT,
    "DPMSolverMultistepScheduler": {},
    "DPMSolverSinglestepScheduler": {},
    "DPMSolverSDEScheduler": _LATENT,
    "DEISMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "SASolverScheduler": {},
}
"""The schedulers of tables of betas, and where their defaults are not those of `_DEFAULTS`."""

_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "variance_type": None,
}
_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")

_BETAS = {
    "linear": "linear",
    "scaled_linear": "scaled-linear",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid-betas",
}
_PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_VARIANCES = {"fixed_large": "beta", "fixed_large_log": "beta", "learned_range": "learned"}


class Scheduled(NamedTuple):
    """What a scheduler's config says.

    schedule, parameterization, told: of the model.
    grid: where it would lay its steps. threshold: how it keeps pixels in range.
    variance: what its ancestral steps draw with: posterior, beta or learned.
    """

    schedule: Spec
    parameterization: Spec
    told: Spec
    grid: Spec
    threshold: Spec
    variance: str

    @property
    def terminal(self) -> bool:
        """Whether the schedule was made to end at pure noise."""
        return self.schedule.name == "zero-terminal"


def scheduled(config: Mapping[str, Any] | None, where: str, tokens: int = 0) -> Scheduled:
    """Read a scheduler's config.

    Args:
        config: None for that of DDPM.
        where: what it belongs to, for messages.
        tokens: of a picture, by which some flows are shifted.

    Raises:
        CheckpointError: a scheduler, a schedule or a prediction that has no counterpart here.
    """
    config = config or {"_class_name": "DDPMScheduler"}
    name = str(config.get("_class_name"))
    if name in _FLOWS:
        return _flow(config, where, tokens)
    if name not in _TABLES or config.get("use_flow_sigmas"):
        known = ", ".join((*_TABLES, *_FLOWS))
        raise CheckpointError(
            f"The scheduler of {where}, '{name}', says nothing here of what its model was trained "
            f"on; those that do are {known}."
        )
    given = {key: value for key, value in config.items() if value is not None}
    fields = {**_DEFAULTS, **_TABLES[name], **given}
    return Scheduled(
        _schedule(fields, where),
        spec(_known(_PREDICTS, fields, "prediction_type", where)),
        spec("index"),
        _grid(fields, where),
        _threshold(fields, where),
        _VARIANCES.get(str(fields["variance_type"]), "posterior"),
    )


def _schedule(fields: Mapping[str, Any], where: str) -> Spec:
    if fields["trained_betas"] is not None:
        table = spec("betas", values=_numbers(fields["trained_betas"], where))
    else:
        name = _known(_BETAS, fields, "beta_schedule", where)
        table = spec(name, steps=fields["num_train_timesteps"])
        if name != "cosine":
            table = table.with_settings(beta_min=fields["beta_start"], beta_max=fields["beta_end"])
    if not fields["rescale_betas_zero_snr"]:
        return table
    return spec("zero-terminal", schedule=str(table))


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        raise CheckpointError(f"The betas of {where} are no list of numbers; it is damaged.")
    return tuple(map(float, values))


def _grid(fields: Mapping[str, Any], where: str) -> Spec:
    grids = {
        "leading": spec("leading", steps_offset=fields["steps_offset"]),
        "linspace": spec("linspace"),
        "trailing": spec("strided"),
    }
    grid: Spec = _known(grids, fields, "timestep_spacing", where)
    return grid


def _threshold(fields: Mapping[str, Any], where: str) -> Spec:
    if fields["thresholding"]:
        return spec(
            "dynamic",
            percentile=fields["dynamic_thresholding_ratio"],
            most=max(1.0, fields["sample_max_value"]),
        )
    if not fields["clip_sample"]:
        return spec("none")
    if fields["clip_sample_range"] != 1:
        raise CheckpointError(
            f"The scheduler of {where} clips at {fields['clip_sample_range']}, and pixels end at "
            "1; set clip_sample_range to 1 in its scheduler_config.json."
        )
    return spec("static")


def _flow(config: Mapping[str, Any], where: str, tokens: int) -> Scheduled:
    """A straight path, told 1000·t; what shifts its sampling is a grid's."""
    if config.get("invert_sigmas"):
        raise CheckpointError(
            f"The scheduler of {where} has 'invert_sigmas', which has no counterpart here; take a "
            "model without."
        )
    moved = bool(config.get("use_dynamic_shifting"))
    shift = _moved(config, tokens) if moved else float(config.get("shift", 1.0))
    return Scheduled(
        spec("flow"),
        spec("flow"),
        spec("time", scale=float(config.get("num_train_timesteps", 1000))),
        spec("uniform", shift=shift),
        spec("none"),
        "posterior",
    )


def _moved(config: Mapping[str, Any], tokens: int) -> float:
    """The shift for a picture of so many tokens: mu is linear in them, the shift e^mu."""
    short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (tokens - short) / (long - short)
    return float(mu if config.get("time_shift_type") == "linear" else math.exp(mu))


def _known(table: Mapping[str, Any], fields: Mapping[str, Any], key: str, where: str) -> Any:
    value = fields[key]
    if not isinstance(value, str) or value not in table:
        raise CheckpointError(
            f"The scheduler of {where} has {key} {value!r}, which is not known here; it can be "
            f"{', '.join(table)}."
        )
    return table[value]
