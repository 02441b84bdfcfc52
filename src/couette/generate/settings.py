"""How pictures are drawn: the model's own way, with what a user changes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from couette.config import SamplingConfig, Spec, spec
from couette.guidance import GUIDANCE, THRESHOLDS
from couette.model import Model
from couette.registry import GRIDS
from couette.runs import find_model
from couette.samplers import SAMPLERS
from couette.validation import parse


def sampling_of(model: Model, **settings: Any) -> SamplingConfig:
    """The model's own sampling with some settings replaced; None leaves one as it is.

    Its parts come back with all their settings, converted, and paths as the checkpoints they are.

    Raises:
        ConfigError, UnknownName: a setting or a part that does not exist.
        CheckpointError: a path without a model.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    fields = {**model.config.sampling.model_dump(), **given}
    sampling = parse(SamplingConfig, fields, "the sampling settings")
    families = {"sampler": SAMPLERS, "grid": GRIDS, "threshold": THRESHOLDS}
    parts = {name: getattr(sampling, name) for name in families}
    whole = {
        name: Spec(name=part.name, **families[name].check(part)) for name, part in parts.items()
    }
    return sampling.model_copy(update={**whole, "guider": tuple(map(_found, sampling.guider))})


def _found(guider: Spec) -> Spec:
    """A method of guidance with all its settings, its model looked up."""
    settings = GUIDANCE.check(guider)
    if "run" in settings:
        settings["run"] = str(find_model(Path(settings["run"])).resolve())
    return Spec(name=guider.name, **{k: v for k, v in settings.items() if v is not None})


def shortened(sampling: SamplingConfig, steps: int) -> SamplingConfig:
    """The same sampling in at most `steps` steps; fewer of DDPM's chain are drawn with DDIM."""
    if steps >= sampling.steps:
        return sampling
    sampler = spec("ddim") if sampling.sampler.name == "ddpm" else sampling.sampler
    return sampling.model_copy(update={"steps": steps, "sampler": sampler})


def said(sampling: SamplingConfig) -> str:
    """The sampling in words: "heun, 8 steps, guidance 1.5"."""
    plural = "" if sampling.steps == 1 else "s"
    shared = f", features shared by {sampling.reuse}" if sampling.reuse > 1 else ""
    brief = SAMPLERS.brief(sampling.sampler)
    return f"{brief}, {sampling.steps} step{plural}{sampling.guided}{shared}"


def times_of(model: Model, sampling: SamplingConfig) -> Tensor:
    """The grid of times the settings ask for, (N + 1,) float64."""
    times: Tensor = GRIDS.bind(sampling.grid)(
        model.denoiser.corruption.schedule, steps=sampling.steps
    )
    return times


def together(sampling: SamplingConfig, batch: int) -> int:
    """How many pictures are drawn at once: one, by samplers that choose their own steps, since a
    batch would share them and a picture depend on its neighbours."""
    return 1 if SAMPLERS.trait(sampling.sampler.name, "adaptive") else batch
