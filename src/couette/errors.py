"""Every error Couette raises on purpose, and the exit code that the command line gives it.

    CouetteError                 1   something went wrong that was not the input
    ├── InputError               2   what was asked can't be done as asked; nothing was written
    │   ├── UnknownName              a name that no registry or folder holds; the nearest is named
    │   ├── ConfigError              a setting of the wrong kind, range or combination
    │   ├── DataError                pictures that can't be read, or too few of them
    │   ├── ShapeError               a size, channel count or batch that does not fit
    │   └── CheckpointError          a saved model or run that is missing, damaged or foreign
    ├── StorageError             2   the disk is full, read-only or gone
    ├── Diverged                 4   a loss or gradient is no longer finite
    ├── NotFinite                4   a prediction is not finite
    └── Interrupted            130   SIGINT or SIGTERM, after the run was saved (143 for SIGTERM)

`DamagedCheckpoint` is a warning: something older was used instead.

A message says what was given, what is expected and what to do next, in a sentence or two.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_FEW = 12
"""Names that can still be read in one line."""
_LISTED = {
    **{kind: f"{kind}s" for kind in ("sampler", "network", "schedule", "guider", "figure")},
    "time grid": "grids",
    "recipe": "recipes",
}
"""What `couette list` calls the families that may be long."""


class CouetteError(Exception):
    """Base of every error that Couette raises on purpose."""

    exit_code = 1


class InputError(CouetteError, ValueError):
    """The request can't be carried out as given."""

    exit_code = 2


class UnknownName(InputError):
    """A name that nothing answers to.

    Args:
        kind: what was looked for, in the singular ("sampler").
        given: the name as given.
        known: the names that exist.
        here: where others give that name to something known, what to write for it and which flags
            to give with it.
    """

    def __init__(
        self, kind: str, given: str, known: Iterable[str], here: Sequence[str] = ()
    ) -> None:
        names = sorted(known)
        near = nearest(given, names)
        if here:
            name, *flags = here
            hint = f"it is called '{name}' here{''.join(f' (with {each})' for each in flags)}."
        elif near:
            hint = f"did you mean '{near}'?"
        elif len(names) > _FEW and kind in _LISTED:
            hint = f"`couette list {_LISTED[kind]}` shows the {len(names)} there are."
        else:
            hint = f"choose one of: {', '.join(names)}."
        super().__init__(f"There is no {kind} '{given}'; {hint}")


class ConfigError(InputError):
    """A setting of the wrong kind or range, or settings that contradict each other."""


class DataError(InputError):
    """Data that can't be read, or of which there is too little."""


class ShapeError(InputError):
    """A size that does not fit the part it was given to."""


class CheckpointError(InputError):
    """A saved model or run that is missing, damaged, or of another shape."""


class Noted(UserWarning):
    """What a user should know, though the work goes on; commands say it on stderr."""


class WordsCut(Noted):
    """Words that are longer than what the model reads, and lose their end."""


class DamagedCheckpoint(Noted):
    """The newest checkpoint of a run is damaged, and an older one is used in its place."""


class StorageError(CouetteError):
    """The disk is full, read-only or gone; what was saved before is untouched."""

    exit_code = 2


class Diverged(CouetteError):
    """A loss or gradient stopped being finite, several times in a row."""

    exit_code = 4


class NotFinite(CouetteError):
    """A model predicted infinities, or what is no number."""

    exit_code = 4


class Interrupted(CouetteError):
    """The run was asked to stop, and has saved its state.

    Args:
        signal: the number of the signal that asked.
        message: what was saved, and how to go on.
    """

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


def folded(name: str) -> str:
    """A name without what people write differently: capitals, and how its words are joined."""
    return name.casefold().replace("_", "-").replace(" ", "-")


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name closest to the given one, or None where nothing is close."""
    names = {folded(name): name for name in known}
    close = difflib.get_close_matches(folded(given), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None
