"""A model of another library as a `Model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from couette.config import ModelConfig
from couette.denoiser import build_denoiser
from couette.errors import CheckpointError, nearest
from couette.interop.families import PIPELINES, Family
from couette.interop.folders import Folder, guarded
from couette.interop.places import located
from couette.model import Model
from couette.runtime import Runtime


def describe(given: str | Path) -> ModelConfig:
    """What a model is, from its configs alone.

    Args:
        given: a folder in diffusers' layout, or `owner/name` of the hub.

    Raises:
        CheckpointError: it can't be had, is damaged, or of a kind that is not known.
        ConfigError: a package is missing.
    """
    folder = _opened(given)
    return _described(folder, _family(folder))


def load(given: str | Path, runtime: Runtime | None = None) -> Model:
    """Load a model; its weights are in float32, or where the runtime computes in bfloat16 in that,
    since nothing trains them.

    Args:
        given: a folder in diffusers' layout, or `owner/name` of the hub.
        runtime: where to put it; the CPU in float32 when not given.

    Raises:
        CheckpointError: it can't be had, is damaged, or of a kind that is not known; or its weights
            are pickles.
        ConfigError: a package is missing.
    """
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    folder = _opened(given)
    family = _family(folder)
    config = _described(folder, family)
    parts = guarded(lambda: family.parts(folder, config, runtime), folder.given)
    denoiser = build_denoiser(config.diffusion, cast(Any, parts.network), runtime)
    return Model(denoiser, parts.codec, parts.conditioner, config)


def _opened(given: str | Path) -> Folder:
    return Folder(located(given), str(given))


def _family(folder: Folder) -> Family:
    """The kind of a pipeline.

    Raises:
        CheckpointError: one that is not known.
    """
    if folder.kind in PIPELINES:
        return PIPELINES[folder.kind]
    if folder.single:
        raise CheckpointError(
            f"{folder.given} holds a '{folder.kind}' by itself; give the folder of its whole "
            "pipeline, with model_index.json."
        )
    near = nearest(folder.kind, PIPELINES)
    hint = f" (the nearest is {near})" if near else ""
    raise CheckpointError(
        f"{folder.given} is a '{folder.kind}', which is none of the kinds that can be loaded"
        f"{hint}: {', '.join(PIPELINES)}."
    )


def _described(folder: Folder, family: Family) -> ModelConfig:
    return guarded(lambda: family.describe(folder), folder.given)
