"""What an edit came to, to be looked at: what was given beside what was made, or in motion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from couette.editing.carry import Edited, watched
from couette.editing.registry import Edit, Scene
from couette.render import reverse_frames, spread, strip

_MOST = 40
"""Frames of an animation."""


def sheet(rows: Sequence[Edited], *, title: str = "") -> Image:
    """The pictures before, then the results: a line for each row and each way to look at it."""
    lines = {}
    for row in rows:
        whole = torch.cat([*row.edit.before.values(), row.pictures])
        looks = row.edit.views or {"": lambda x: x}
        for name, look in looks.items():
            lines[", ".join(filter(None, (row.name, name)))] = look(whole).float()
    return strip(lines, columns=list(rows[0].edit.before), title=title)


def frames(scene: Scene, edit: Edit) -> list[Image]:
    """What the model predicts at each step, `_MOST` of them at most, and what it ends with."""
    steps = list(watched(scene, edit))
    chosen = [steps[i] for i in spread(len(steps), _MOST)]
    return reverse_frames(list(map(_looked(edit), chosen)))


def _looked(edit: Edit):  # type: ignore[no-untyped-def]
    def looked(pictures: Tensor) -> Tensor:
        views = edit.views or {"": lambda x: x}
        return torch.stack([look(pictures) for look in views.values()], 1).flatten(0, 1)

    return looked
