"""A model by itself, without the run that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from couette import storage
from couette.config import ModelConfig, RunConfig, TrainingConfig
from couette.errors import InputError
from couette.model import (
    AUTOENCODER,
    AVERAGE,
    CONFIG,
    READER,
    SECOND,
    TOKENIZER,
    WEIGHTS,
    read_config,
)
from couette.opening import open_whole
from couette.runs import STATE, RunFolder, find_model
from couette.training.average import Profile, combined

Stored = Literal["float32", "float16", "bfloat16"]
_DTYPES: tuple[str, ...] = get_args(Stored)

MISSED = 0.05
"""Largest share of an average's profile that may be missed when it is combined from others."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    dtype: Stored = "float32",
    average: bool = True,
    width: float | None = None,
) -> Path:
    """Write the model of a run as a folder by itself: to keep, to pass on, or to draw from.

    The folder holds what drawing needs and nothing of the training: `model.json`, the weights as
    safetensors, a tokenizer and an autoencoder where the model has them, and the run's card. Every
    verb takes it where it takes a run.

    Args:
        run: the folder of a run, a checkpoint or a saved model.
        out: the new folder.
        dtype: of the weights in the file; in half the bytes they keep 11 (float16) or 8 (bfloat16)
            binary digits. They are float32 again when they are loaded.
        average: the running average of the weights; False for the raw ones.
        width: of an average made now, of a run that was trained with --training.second: the
            averages of all its checkpoints are combined (Karras et al. 2024, sec. 3.2).

    Returns:
        The new folder.

    Raises:
        InputError: `out` is there already, an unknown dtype, weights that float16 can't hold, or a
            width of raw weights or that the checkpoints can't give.
        CheckpointError: nothing to export there, or it is damaged.
        StorageError: the disk refuses; nothing half written is left.
    """
    out = Path(out)
    if dtype not in _DTYPES:
        raise InputError(f"'{dtype}' is no dtype of stored weights; give {', '.join(_DTYPES)}.")
    if width is not None and not average:
        raise InputError("A width is that of an average; leave it out for the raw weights.")
    if out.exists():
        raise InputError(f"{out} is there already; give another folder, or remove it first.")
    held = RunFolder(Path(run))
    folder = find_model(held.path)
    open_whole(folder, average=average)
    config, card = _drawn_as_the_run(read_config(folder), held)
    weights = folder / (AVERAGE if average and (folder / AVERAGE).exists() else WEIGHTS)
    files = {CONFIG: storage.json_bytes(config.model_dump(mode="json"))}
    sources = {WEIGHTS: weights, AUTOENCODER: folder / AUTOENCODER, READER: folder / READER}
    for name, path in sources.items():
        if path.exists():
            if name == WEIGHTS and width is not None:
                tensors = averaged(held, width)
            else:
                tensors = storage.read_tensors(path)
            files[name] = storage.tensor_bytes(_stored(tensors, dtype, path))
    if (folder / TOKENIZER).exists():
        files[TOKENIZER] = storage.read_text(folder / TOKENIZER).encode()
    if card is not None:
        files["README.md"] = card.encode()
    storage.check_room(out.parent, sum(map(len, files.values())), "its files")
    storage.write_folder(out, files)
    return out


def averaged(run: RunFolder, width: float) -> dict[str, Tensor]:
    """The average of a width at the end of a run, from the two averages in its checkpoints.

    Raises:
        InputError: the run has no second average, or its checkpoints can't give this width.
        CheckpointError: a checkpoint is damaged.
    """
    training = run.config().training if run.exists() else TrainingConfig()
    widths = {AVERAGE: training.average, SECOND: training.second}
    kept: dict[Path, Profile] = {}
    for folder in run.numbered() if training.second else ():
        storage.check_folder(folder)
        updates = int(storage.read_json(folder / STATE)["trainer"]["updates"])
        there = {name: own for name, own in widths.items() if (folder / name).exists()}
        kept |= {folder / name: Profile(updates, own) for name, own in there.items()}
    if not any(path.name == SECOND for path in kept):
        raise InputError(
            f"{run.path} has no second average, from which others could be made; train with "
            "--training.second, 0.1 say."
        )
    wanted = Profile(max(profile.updates for profile in kept.values()), width)
    factors, missed = combined([*kept.values()], wanted)
    if missed > MISSED:
        raise InputError(
            f"The checkpoints in {run.checkpoints} would miss an average of width {width:g} by "
            f"{missed:.0%}; ask for one nearer to {training.average:g} or "
            f"{training.second:g}, or keep more checkpoints: --training.keep."
        )
    total: dict[str, Tensor] = {}
    for factor, path in zip(factors, kept, strict=True):
        for name, value in storage.read_tensors(path).items():
            part = factor * value.double() if value.is_floating_point() else value
            before = total.get(name) if value.is_floating_point() else None
            # What only counts, as batches do, is as it was last.
            total[name] = part if before is None else before + part
    return {n: v.float() if v.is_floating_point() else v for n, v in total.items()}


def _drawn_as_the_run(config: ModelConfig, run: RunFolder) -> tuple[ModelConfig, str | None]:
    """The model as its run draws now, and the run's card."""
    if not run.exists():
        return config, None
    settings: RunConfig = run.config()
    card = storage.read_text(run.card) if run.card.exists() else None
    return config.model_copy(update={"sampling": settings.sampling}), card


def _stored(tensors: dict[str, Tensor], dtype: str, path: Path) -> dict[str, Tensor]:
    """The tensors, their floating-point numbers in the dtype.

    Raises:
        InputError: a number that it can't hold.
    """
    wanted: torch.dtype = getattr(torch, dtype)
    stored = {
        name: value.to(wanted) if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    for name, value in stored.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(
                f"{name} in {path} holds numbers beyond {dtype}; give --dtype float32 or bfloat16."
            )
    return stored
