"""Models and what they draw: `load`, `sample`, `steps`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from couette import generate
from couette.config import RuntimeConfig
from couette.contracts import Step
from couette.errors import InputError
from couette.model import Model
from couette.opening import open_model
from couette.runtime import choose
from couette.validation import parse


def check_seed(seed: int) -> None:
    """Refuse a seed that noise can't be drawn from.

    Raises:
        InputError: below 0, or of more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"A seed is a whole number from 0 to 2^63 - 1, not {seed}.")


def load(
    path: str | Path, *, average: bool = True, device: str = "auto", dtype: str = "auto"
) -> Model:
    """Load the model of a run, a checkpoint or a saved model, or one in diffusers' layout; or make
    one of an exact world.

    The model of a run draws as the run's `config.yaml` says now; another as it was saved.

    Args:
        path: the folder, a world as `exact:digits` (see `couette.exact`), or `owner/name` of the
            Hugging Face hub.
        average: the running average of the weights; False for the raw ones.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16".

    Raises:
        CheckpointError: nothing to load there, or it is damaged; other CouetteErrors as they fit.
    """
    asked = parse(RuntimeConfig, {"device": device, "dtype": dtype}, "the arguments of load")
    return open_model(path, average=average, runtime=choose(asked))


def sample(
    model: Model | str | Path,
    *,
    count: int = 16,
    label: int | str | Sequence[int | str] | None = None,
    prompt: str | Sequence[str] | None = None,
    toward: str | None = None,
    weight: float | Sequence[float] | None = None,
    seed: int = 0,
    batch: int = 64,
    **settings: Any,
) -> Tensor:
    """Draw pictures.

    Args:
        model: a loaded model, or what `load` takes.
        count: how many.
        label: a class by name or number for all, "each" for every class in turn, one per
            picture, or None for anything.
        prompt: words for all, or several prompts, which the pictures take in turn.
        toward: words to go part of the way to, from those of the prompt.
        weight: how much of the way, 0 to 1, half when not given; several are taken in turn.
        seed: picture i of a seed is the same at any batch size.
        batch: how many are drawn at once.
        settings: `guidance`, `guider`, `negative`, `sampler`, `steps`, `grid`, `threshold`,
            `passes`, `reuse`, as in `SamplingConfig`; the model's own when not given.

    Returns:
        (count, C, H, W) float32 in [-1, 1] on the CPU; points as (count, 2, 1, 1).

    Raises:
        InputError: what was asked does not fit the model.
    """
    check_seed(seed)
    held = model if isinstance(model, Model) else load(model)
    sampling = generate.sampling_of(held, **settings)
    asked = generate.ask(held, count, label, sampling, prompt, toward, weight)
    return torch.cat(
        list(generate.pictures(held, asked, seed=seed, batch=batch, sampling=sampling))
    )


def steps(
    model: Model | str | Path,
    *,
    count: int = 16,
    label: int | str | Sequence[int | str] | None = None,
    prompt: str | Sequence[str] | None = None,
    toward: str | None = None,
    weight: float | Sequence[float] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Iterator[Step]:
    """Draw one batch step by step: a generator of Steps. Arguments as for `sample`."""
    check_seed(seed)
    held = model if isinstance(model, Model) else load(model)
    sampling = generate.sampling_of(held, **settings)
    asked = generate.ask(held, count, label, sampling, prompt, toward, weight)
    return generate.steps(held, asked, seed=seed, sampling=sampling)
