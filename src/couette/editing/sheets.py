"""What an edit came to, to be looked at: what was given beside what was made, or in motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from couette.editing.carry import Edited, watched
from couette.editing.registry import Edit, Scene
from couette.render import reverse_frames, strip

_MOST = 40
"""Frames of an animation."""


def sheet(rows: Sequence[Edited], *, title: str = "") -> Image:
    """The pictures before, then the results: a line for each row and each way to look at it."""
    lines = {}
    for row in rows:
        whole = torch.cat([*row.edit.before.values(), row.pictures])
        for name, look in _looks(row.edit).items():
            lines[", ".join(filter(None, (row.name, name)))] = look(whole).float()
    return strip(lines, columns=list(rows[0].edit.before), title=title)


def frames(scene: Scene, edit: Edit) -> list[Image]:
    """What the model predicts at each step, `_MOST` of them at most, and what it ends with; each
    picture in all the ways to look at it."""
    looks = _looks(edit).values()
    return reverse_frames(
        [
            torch.stack([look(seen) for look in looks], 1).flatten(0, 1)
            for seen in watched(scene, edit, _MOST)
        ]
    )


def _looks(edit: Edit) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """The ways to look at what an edit makes; as it is, where it names none."""
    return edit.views or {"": lambda x: x}
