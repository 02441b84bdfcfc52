"""Drawn pictures as files: a sheet, a file each, an array, an animation."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from couette import __version__, generate
from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.data import to_uint8
from couette.errors import InputError
from couette.exact import folder_of
from couette.model import Model
from couette.render import dye, grid, reverse_frames, save, save_gif, spread
from couette.storage import check_writable, write_bytes

_FRAMES = 40
_SHEET = 4096
"""Pictures that still make one sheet."""
_SUFFIX = {"grid": ".png", "npz": ".npz", "gif": ".gif", "png": ""}


def written(
    model: Model,
    asked: Sequence[Ask],
    sampling: SamplingConfig,
    source: Path,
    out: Path | None,
    format: str,
    seed: int,
    batch: int,
    metadata: bool,
) -> list[Path]:
    """Draw what is asked and write it.

    Raises:
        InputError: a place or format that does not fit; before anything is drawn.
        StorageError: the disk refuses: where that can be known, before anything is drawn.
    """
    path = out or _place(source, format, asked, seed)
    _check_place(path, format, len(asked), model)
    text = parameters(model, sampling, seed) if metadata else {}
    if format == "gif":
        return [_animation(model, asked, sampling, seed, path)]
    batches = generate.pictures(model, asked, seed=seed, batch=batch, sampling=sampling)
    if format == "png":
        return list(_files(batches, path, text))
    drawn = torch.cat(list(batches))
    if format == "npz":
        return [_array(drawn, asked, model, path)]
    if model.is_points:
        sheet = dye([drawn.reshape(-1, 2)], titles=[""])
    else:
        labels = [ask.label for ask in asked]
        classes = len(model.config.classes)
        in_turn = classes > 1 and labels == [i % classes for i in range(len(asked))]
        sheet = grid(drawn, columns=classes if in_turn and classes <= 16 else None)
    save(sheet, path, text=text)
    return [path]


def parameters(model: Model, sampling: SamplingConfig, seed: int) -> dict[str, str]:
    """The settings a picture was made with: the web UIs' line, and ours as JSON."""
    config = model.config
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    line = (
        f"Steps: {sampling.steps}, Sampler: {sampling.sampler}, CFG scale: {sampling.guidance:g}, "
        f"Seed: {seed}, Size: {config.width}x{config.height}, Model hash: {digest.hexdigest()[:10]}"
    )
    own = {
        "version": __version__,
        "seed": seed,
        "sampling": sampling.model_dump(mode="json"),
        "recipe": config.recipe,
        "step": config.step,
        "model": digest.hexdigest(),
    }
    return {"parameters": line, "couette": json.dumps(own)}


def _place(source: Path, format: str, asked: Sequence[Ask], seed: int) -> Path:
    """A telling name in the run's folder."""
    labels = {ask.label for ask in asked}
    only = labels.pop() if len(labels) == 1 else None
    label = "" if only is None else f"-label{only}"
    name = f"seed{seed}{label}-{len(asked)}"
    checkpoint = source.resolve().parent.name == "checkpoints"
    folder = source.resolve().parents[1] if checkpoint else folder_of(source)
    return folder / "pictures" / (name + _SUFFIX[format])


def _check_place(path: Path, format: str, count: int, model: Model) -> None:
    if format == "png":
        if path.is_file() or path.suffix:
            raise InputError(f"--format png writes a folder of {count} files; {path} is a file.")
        if model.is_points:
            raise InputError("Points make no pictures of their own; use --format grid or npz.")
    elif path.is_dir() or path.suffix.lower() != _SUFFIX[format]:
        raise InputError(
            f"--format {format} writes one {_SUFFIX[format]} file; give --out such a name, "
            f"not {path}."
        )
    elif format != "npz" and count > _SHEET and not model.is_points:
        raise InputError(
            f"A sheet holds at most {_SHEET:,} pictures, not {count:,}; use --format png or npz."
        )
    check_writable(path if format == "png" else path.parent)


def _files(batches: Iterator[torch.Tensor], folder: Path, text: dict[str, str]) -> Iterator[Path]:
    """A file for each picture, as soon as its batch is drawn: what is there stays there."""
    for index, picture in enumerate(chain.from_iterable(batches)):
        path = folder / f"{index:05d}.png"
        own = {**text, "couette-index": str(index)} if text else {}
        save(grid(picture[None], columns=1, scale=1, pad=0), path, text=own)
        yield path


def _array(drawn: torch.Tensor, asked: Sequence[Ask], model: Model, path: Path) -> Path:
    """`images` uint8 (N, H, W) or (N, H, W, 3), or `points` (N, 2); `labels` int64, -1 for none."""
    labels = np.array([-1 if ask.label is None else ask.label for ask in asked], dtype=np.int64)
    if model.is_points:
        fields = {"points": drawn.reshape(-1, 2).numpy()}
    else:
        images = to_uint8(drawn).permute(0, 2, 3, 1).contiguous().numpy()
        fields = {"images": images[..., 0] if images.shape[-1] == 1 else images}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=labels, **fields)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
    return path


def _animation(
    model: Model, asked: Sequence[Ask], sampling: SamplingConfig, seed: int, path: Path
) -> Path:
    """The reverse process, at most `_FRAMES` of its steps."""
    batches = [
        model.codec.decode(step.x).float().cpu()
        for step in generate.steps(model, asked, seed=seed, sampling=sampling)
        if step.count is None or step.index in spread(step.count, _FRAMES)
    ]
    save_gif(reverse_frames(batches), path)
    return path
