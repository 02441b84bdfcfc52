"""Edits carried out: from a scene to pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from couette.config import STATES, Spec
from couette.contracts import Step
from couette.editing.registry import EDITS, Edit, Scene
from couette.errors import InputError
from couette.generate import finished, steps, together
from couette.render import spread


@dataclass(frozen=True)
class Edited:
    """What one row of an edit came to.

    Attributes:
        name: what sets it apart from the other rows: "strength 0.6".
        pictures: (N, C, H, W) in [-1, 1].
        edit: how it was drawn: pictures to see before it, ways to look at it.
        notes: what is to be said of it, in sentences.
    """

    name: str
    pictures: Tensor
    edit: Edit
    notes: tuple[str, ...] = ()


def edits_of(scene: Scene, edit: Spec) -> list[Edit]:
    """What an edit makes of a scene: how each of its rows is drawn. Nothing is drawn yet.

    Raises:
        UnknownName, ConfigError: an edit or a setting that does not exist.
        InputError: a model, pictures or settings that the edit can't take.
    """
    settings = EDITS.check(edit)
    model = scene.model
    if model.is_points:
        raise InputError("Edits are of pictures, and this model draws points in the plane.")
    noise = model.denoiser.corruption.noise
    if noise in STATES:
        raise InputError(
            f"Edits need noise that is added to pictures; this model's ({noise}) replaces states."
        )
    if scene.count < 1:
        raise InputError(f"The count of pictures is at least 1, not {scene.count}.")
    needed = int(EDITS.trait(edit.name, "pictures", 0))
    scene.need(*sorted({needed, int(EDITS.trait(edit.name, "optional", needed))}))
    found: list[Edit] = EDITS[edit.name](scene, **settings)
    return found


def drawn(scene: Scene, edit: Edit, batch: int = 64) -> Tensor:
    """The pictures of one row, (N, C, H, W) in [-1, 1] on the CPU.

    Raises:
        InputError: a batch below 1, or what the model can't be asked.
    """
    if batch < 1:
        raise InputError(f"A batch holds at least one picture, not {batch}.")
    made = []
    batch = together(edit.sampling or scene.sampling, batch)
    for first in range(0, len(edit.asked), batch):
        # Only the last step is kept, and decoded in the edit's own way.
        last = deque(_walk(scene, edit, first, batch), maxlen=1).pop()
        made.append(_seen(scene, edit, last.x))
    return torch.cat(made)


def watched(scene: Scene, edit: Edit, most: int) -> Iterator[Tensor]:
    """What one row's model predicts at some of its steps, then what it ends with, (N, C, H, W).

    Args:
        scene, edit: as for `drawn`.
        most: how many steps are decoded; of a walk that can't know its length, all.

    Raises:
        InputError: several pictures by a sampler that chooses its own steps for each.
    """
    count = len(edit.asked)
    if count > together(edit.sampling or scene.sampling, count):
        raise InputError(
            f"The sampler '{scene.sampling.sampler.name}' takes other steps for each picture, so "
            "they make no film together; give --count 1, or another sampler."
        )
    last: Step | None = None
    for last in _walk(scene, edit, 0, count):
        if last.count is None or last.index in spread(last.count, most):
            yield _seen(scene, edit, last.x0)
    assert last is not None  # every walk has a step
    yield _seen(scene, edit, last.x)


def _walk(scene: Scene, edit: Edit, first: int, count: int) -> Iterator[Step]:
    """The steps of `count` of a row's pictures, from the picture `first` on."""
    return steps(
        scene.model,
        edit.asked[first : first + count],
        seed=scene.seed,
        first=first,
        sampling=edit.sampling or scene.sampling,
        editor=edit.editor,
        drive=edit.drive,
        shape=edit.shape,
    )


@torch.no_grad()
def _seen(scene: Scene, edit: Edit, x: Tensor) -> Tensor:
    if edit.decode is None:
        found = finished(scene.model, x)
    else:
        found = edit.decode(x).float().cpu().clamp(-1, 1)
    return found if edit.finish is None else edit.finish(found)
