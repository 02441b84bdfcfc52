"""Edits of pictures, on any model: `edit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from couette import generate
from couette.api.drawing import check_seed, load
from couette.config import SamplingConfig, Spec
from couette.data import to_float
from couette.data.decode import BadPicture, Look, color, probe, read_picture
from couette.editing import EDITS, Edit, Edited, Scene, drawn, edits_of
from couette.errors import DataError, ShapeError
from couette.evaluation.reconstruction import peak_ratio, similarity
from couette.model import Model

_BACKGROUND = "white"
_SAMPLING = frozenset(SamplingConfig.model_fields)


def edit(
    model: Model | str | Path,
    name: str,
    *pictures: str | Path | Tensor,
    count: int = 4,
    label: str | int | Sequence[str | int] = (),
    prompt: str | Sequence[str] = (),
    seed: int = 0,
    batch: int = 64,
    **settings: Any,
) -> list[Edited]:
    """Change, combine or complete pictures with a model.

    Args:
        model: a loaded model, or what `load` takes.
        name: of the edit: "img2img", "inpaint", "anagram", … (`couette list edits`).
        pictures: files, which are brought to the model's size, or tensors of it, (C, H, W) or (1,
            C, H, W) in [-1, 1]; as many as the edit needs.
        count: how many pictures to draw, in each of its rows.
        label: a class by name or number, or several: an edit of several things takes one for each,
            others take them in turn.
        prompt: words, or several, likewise.
        seed: picture i of a seed is the same at any batch size.
        batch: how many are drawn at once.
        settings: the edit's own, and those of `SamplingConfig`.

    Returns:
        A row for each way in which the edit was asked for.

    Raises:
        InputError: what was asked does not fit the model or the pictures; before anything is drawn.
        DataError: a file that can't be read.
    """
    held = model if isinstance(model, Model) else load(model)
    scene, _ = scene_of(
        held, name, pictures, count=count, label=label, prompt=prompt, seed=seed, settings=settings
    )
    spec = edit_spec(name, settings)
    return [finished(scene, each, batch) for each in edits_of(scene, spec)]


def edit_spec(name: str, settings: dict[str, Any]) -> Spec:
    """The edit with those of the settings that are its own.

    Raises:
        UnknownName: no edit of that name.
    """
    EDITS[name]
    own = {key: value for key, value in settings.items() if key not in _SAMPLING}
    return Spec(name=name, **own)


def scene_of(
    model: Model,
    name: str,
    pictures: Sequence[str | Path | Tensor],
    *,
    count: int,
    label: str | int | Sequence[str | int],
    prompt: str | Sequence[str],
    seed: int,
    settings: dict[str, Any],
) -> tuple[Scene, tuple[str, ...]]:
    """What an edit is made on, and what was done to the pictures on the way, in sentences.

    Raises:
        InputError, DataError: as `edit`.
    """
    check_seed(seed)
    EDITS[name]
    drawing = {key: value for key, value in settings.items() if key in _SAMPLING}
    read = [_read(model, each) for each in pictures]
    labels = (label,) if isinstance(label, str | int) else tuple(label)
    scene = Scene(
        model,
        tuple(each for each, _, _ in read),
        count,
        tuple(map(str, labels)),
        (prompt,) if isinstance(prompt, str) else tuple(prompt),
        generate.sampling_of(model, **drawing),
        tuple(each for _, each, _ in read),
        seed,
    )
    return scene, tuple(note for _, _, notes in read for note in notes)


def finished(scene: Scene, each: Edit, batch: int = 64) -> Edited:
    """One row drawn, with how near it came to what it should be where that is known."""
    found = drawn(scene, each, batch)
    notes = each.notes
    if each.truth is not None:
        pair = (found + 1) / 2, (each.truth.expand_as(found) + 1) / 2
        near = float(peak_ratio(*pair).mean()), float(similarity(*pair).mean())
        notes = (*notes, f"Against the original: PSNR {near[0]:.1f} dB, SSIM {near[1]:.3f}.")
    return Edited(each.name, found, each, notes)


def _read(model: Model, given: str | Path | Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """A picture at the model's size, at its own, and what was done to it.

    Raises:
        DataError: a file that can't be read.
        ShapeError: a tensor of another size.
    """
    config = model.config
    wanted = (config.channels, config.height, config.width)
    if isinstance(given, Tensor):
        picture = given.detach().float().cpu().reshape(1, *given.shape[-3:])
        if picture.shape[1:] != wanted:
            raise ShapeError(
                f"A picture of {tuple(given.shape)} was given, and the model makes {wanted}; give "
                "a file, or scale it first."
            )
        return picture, picture, ()
    path = Path(given)
    try:
        header = probe(path)
    except BadPicture as error:
        raise DataError(f"{path} {error}; give a picture.") from None
    ground = color(_BACKGROUND)
    sized = read_picture(path, Look(config.height, config.width, config.channels, ground))
    own = read_picture(path, Look(header.height, header.width, config.channels, ground))
    notes = []
    if (header.height, header.width) != (config.height, config.width):
        notes.append(
            f"{path.name} was scaled from {header.width} × {header.height} to {config.width} × "
            f"{config.height} pixels."
        )
    if header.transparent:
        notes.append(f"{path.name} is transparent in places, and was laid on {_BACKGROUND}.")
    if not header.gray and config.channels == 1:
        notes.append(f"{path.name} was made gray, as the model's pictures are.")
    return _tensor(sized), _tensor(own), tuple(notes)


def _tensor(pixels: Any) -> Tensor:
    return to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
