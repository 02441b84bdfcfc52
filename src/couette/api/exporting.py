"""A model by itself, without the run that made it; for Couette, for diffusers, or as ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from couette import storage
from couette.config import ModelConfig, RunConfig, TrainingConfig
from couette.errors import InputError
from couette.interop.exports import Export
from couette.interop.graphs import check_onnx
from couette.interop.to_diffusers import METADATA, to_diffusers
from couette.interop.to_onnx import to_onnx
from couette.model import (
    AUTOENCODER,
    AVERAGE,
    CONFIG,
    READER,
    SECOND,
    TOKENIZER,
    WEIGHTS,
    Model,
    load_weights,
    read_config,
)
from couette.opening import open_model, open_whole
from couette.runs import STATE, RunFolder, find_model
from couette.runtime import Runtime
from couette.training.average import Profile, combined

Stored = Literal["float32", "float16", "bfloat16"]
Format = Literal["couette", "diffusers", "onnx"]
_DTYPES: tuple[str, ...] = get_args(Stored)
_FORMATS: tuple[str, ...] = get_args(Format)

MISSED = 0.05
"""Largest share of an average's profile that may be missed when it is combined from others."""


class Exported(NamedTuple):
    """A folder that was written, and what there is to know of it, in sentences."""

    path: Path
    notes: tuple[str, ...]


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: Format = "couette",
    label: int | str | None = None,
    dtype: Stored = "float32",
    average: bool = True,
    width: float | None = None,
) -> Path:
    """Write the model of a run as a folder by itself: to keep, to pass on, or to draw from.

    With the format "couette" the folder holds what drawing needs and nothing of the training:
    `model.json`, the weights as safetensors, a tokenizer and an autoencoder where the model has
    them, and the run's card. Every verb takes it where it takes a run.

    With "diffusers" it is a pipeline that diffusers opens without our code (`DDPMPipeline` or
    `DDIMPipeline`), of a model with the network `unet2d` on pixels. With "onnx" it is the network
    of any model as a graph, `model.onnx`, compared with torch before it is written; a model on
    latents has its autoencoder beside it. Either card says how to draw, and what is left out.

    Args:
        run: the folder of a run, a checkpoint or a saved model.
        out: the new folder.
        format: for whom: "couette", "diffusers" or "onnx" (which needs the packages of
            `couette[onnx]`).
        label: for diffusers, the one class that the pipeline draws, by name or number; None for
            pictures of any class.
        dtype: of the weights in the file; in half the bytes they keep 11 (float16) or 8 (bfloat16)
            binary digits. They are float32 again when they are loaded. ONNX is float32.
        average: the running average of the weights; False for the raw ones.
        width: of an average made now, of a run that was trained with --training.second: the
            averages of all its checkpoints are combined (Karras et al. 2024, sec. 3.2).

    Returns:
        The new folder.

    Raises:
        InputError: `out` is there already, an unknown format or dtype, weights that float16 can't
            hold, a width of raw weights or that the checkpoints can't give, a label for another
            format, a model that the format can't hold, or packages that it needs and are missing.
        CouetteError: a graph that differs from the network.
        CheckpointError: nothing to export there, or it is damaged.
        StorageError: the disk refuses; nothing half written is left.
    """
    return exported(
        run, out, format=format, label=label, dtype=dtype, average=average, width=width
    ).path


def exported(
    run: str | Path,
    out: str | Path,
    *,
    format: Format = "couette",
    label: int | str | None = None,
    dtype: Stored = "float32",
    average: bool = True,
    width: float | None = None,
) -> Exported:
    """`export`, and what there is to know of what it wrote. Arguments and errors are the same."""
    out = Path(out)
    _refuse(out, format, label, dtype, average, width)
    held = RunFolder(Path(run))
    folder = find_model(held.path)
    if format == "couette":
        made = _as_it_is(held, folder, dtype, average, width)
    else:
        runtime = Runtime(threads=torch.get_num_threads())
        if format == "onnx":  # in channels_last a graph holds each norm's moments, step by step
            runtime = replace(runtime, layout="contiguous")
        model = open_model(held.path, average=average, runtime=runtime)
        if width is not None:
            load_weights(model.network, averaged(held, width), str(held.path))
        made = _for_others(model, out, format, label, _card(held, folder))
    files = dict(made.files)
    for name, tensors in made.weights.items():
        metadata = METADATA if format == "diffusers" else None
        files[name] = storage.tensor_bytes(
            _stored(tensors, dtype, folder / Path(name).name), metadata
        )
    storage.check_room(out.parent, sum(map(len, files.values())), "its files")
    storage.write_folder(out, files)
    return Exported(out, made.notes)


def _refuse(
    out: Path,
    format: str,
    label: int | str | None,
    dtype: str,
    average: bool,
    width: float | None,
) -> None:
    """Refuse what is wrong whatever the model is.

    Raises:
        InputError: with what to give instead.
    """
    if format not in _FORMATS:
        raise InputError(f"'{format}' is no format of exports; give {', '.join(_FORMATS)}.")
    if dtype not in _DTYPES:
        raise InputError(f"'{dtype}' is no dtype of stored weights; give {', '.join(_DTYPES)}.")
    if width is not None and not average:
        raise InputError("A width is that of an average; leave it out for the raw weights.")
    if out.exists():
        raise InputError(f"{out} is there already; give another folder, or remove it first.")
    if label is not None and format != "diffusers":
        raise InputError(
            f"A label is for --format diffusers, whose pipelines are told none; a model as "
            f"{format} draws any class: leave out --label."
        )
    if format == "onnx":
        if dtype != "float32":
            raise InputError("Graphs of ONNX are written in float32; leave out --dtype.")
        check_onnx()


def _as_it_is(
    held: RunFolder, folder: Path, dtype: str, average: bool, width: float | None
) -> Export:
    """The folder that every verb takes for a run."""
    open_whole(folder, average=average)
    config = _drawn_as_the_run(read_config(folder), held)
    files = {CONFIG: storage.json_bytes(config.model_dump(mode="json"))}
    if (folder / TOKENIZER).exists():
        files[TOKENIZER] = storage.read_text(folder / TOKENIZER).encode()
    card = _card(held, folder)
    if card is not None:
        files["README.md"] = card.encode()
    weights = folder / (AVERAGE if average and (folder / AVERAGE).exists() else WEIGHTS)
    sources = {WEIGHTS: weights, AUTOENCODER: folder / AUTOENCODER, READER: folder / READER}
    tensors = {
        name: averaged(held, width)
        if name == WEIGHTS and width is not None
        else storage.read_tensors(path)
        for name, path in sources.items()
        if path.exists()
    }
    return Export(files, tensors, ())


def _for_others(
    model: Model, out: Path, format: str, label: int | str | None, card: str | None
) -> Export:
    """The folder that other programs take."""
    if format == "onnx":
        return to_onnx(model, out, card=card)
    asked = None if label is None else model.conditioner.find(str(label))
    return to_diffusers(model, out, label=asked, card=card)


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


def _drawn_as_the_run(config: ModelConfig, run: RunFolder) -> ModelConfig:
    """The model as its run draws now."""
    if not run.exists():
        return config
    settings: RunConfig = run.config()
    return config.model_copy(update={"sampling": settings.sampling})


def _card(run: RunFolder, folder: Path) -> str | None:
    """The card of a run, or of a model by itself."""
    card = run.card if run.exists() else folder / run.card.name
    return storage.read_text(card) if card.exists() else None


def _stored(tensors: Mapping[str, Tensor], dtype: str, path: Path) -> dict[str, Tensor]:
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
