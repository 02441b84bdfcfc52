"""Worlds by name: `exact:digits`, `exact:gaussians`, `exact:FOLDER`, `exact:moons:schedule=flow`.

A registered name is a density that is known; any other is a data set or a folder, and its world is
the empirical one of the training pictures. After the name come settings: `schedule`, those of the
world or, for pictures, those of the data (`exact:digits:resolution=8,limit=500`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from couette.config import DataConfig, DiffusionConfig, Spec, joined, spec, spec_fields
from couette.contracts import Schedule
from couette.data import Dataset, open_data, to_float
from couette.data.toy import GRID_SD, GRID_SIDE, GRID_SPACING
from couette.errors import DataError, InputError
from couette.exact.empirical import Empirical
from couette.exact.known import Known
from couette.exact.mixture import Mixture, fitted
from couette.registry import SCHEDULES, Registry
from couette.validation import parse

PREFIX = "exact:"

WORLDS: Registry[Any] = Registry("exact world")
"""(schedule, data, **settings) -> Known. The trait `data` says what it is a world of."""


@WORLDS.register("gaussians", data=DataConfig(source="gaussians"))
def gaussians(schedule: Schedule, data: Dataset) -> Mixture:
    """The density that the data set `gaussians` is drawn from: 25 clouds in the plane."""
    place = torch.arange(GRID_SIDE**2)
    cells = torch.stack((place % GRID_SIDE, place // GRID_SIDE), 1) - GRID_SIDE // 2
    means = (GRID_SPACING * cells.double()).reshape(-1, 2, 1, 1)
    return Mixture(schedule, means, GRID_SD, labels=place)


@WORLDS.register("mixture", data=DataConfig(source="digits", resolution=8))
def mixture(
    schedule: Schedule, data: Dataset, *, rank: Annotated[int, Field(ge=0)] = 12
) -> Mixture:
    """A Gaussian for each class of the 8×8 digits, with its widest directions."""
    pictures, labels = _labelled(data)
    assert labels is not None  # the digits have classes
    return fitted(schedule, pictures, labels, rank=rank)


def empirical(schedule: Schedule, data: Dataset) -> Empirical:
    """The training pictures themselves, equally likely."""
    pictures, labels = _labelled(data)
    return Empirical(schedule, pictures, labels=labels)


@dataclass(frozen=True)
class World:
    """A world that was named, not yet opened.

    Attributes:
        given: the words that name it.
        part: which of `WORLDS`, with its settings; None for the empirical one of the data.
        schedule: of its corruption.
        data: what it is a world of.
    """

    given: str
    part: Spec | None
    schedule: Spec
    data: DataConfig

    @property
    def diffusion(self) -> DiffusionConfig:
        """How `Ideal` is to be read: it answers with x0, and is told the time as it is."""
        return DiffusionConfig(
            schedule=self.schedule, parameterization=spec("x0"), told=spec("time", scale=1.0)
        )

    def open(self) -> tuple[Known, Dataset]:
        """The world, and the training pictures or points that it is a world of.

        Raises:
            UnknownName, DataError and others: data or settings that do not exist or fit.
        """
        schedule: Schedule = SCHEDULES.build(self.schedule)
        data = open_data(self.data).train
        if self.part is None:
            return empirical(schedule, data), data
        return WORLDS.build(self.part, schedule, data), data


def is_exact(given: str | Path) -> bool:
    """Whether these words name an exact world."""
    return str(given).startswith(PREFIX)


def named(given: str | Path) -> World:
    """The world that words as `exact:digits:schedule=flow` name.

    Raises:
        InputError: no name.
        ConfigError: settings that can't be read or do not exist.
    """
    text = str(given)
    rest = text.removeprefix(PREFIX)
    fields = {"name": rest} if Path(rest).is_dir() else spec_fields(rest)
    name, schedule = fields.pop("name"), Spec.model_validate(joined(fields.pop("schedule", "edm")))
    if not name:
        raise InputError("Say which world: exact:digits, exact:gaussians, or exact:FOLDER.")
    if name in WORLDS:
        part = Spec(name=name, **fields)
        return World(text, part.with_settings(**WORLDS.check(part)), schedule, _data_of(name))
    return World(text, None, schedule, parse(DataConfig, {"source": name, **fields}, f"'{text}'"))


def with_schedule(given: str | Path, schedule: str) -> str:
    """The same world under another schedule, in words.

    Raises:
        InputError: a trained model, which has its own.
    """
    if not is_exact(given):
        raise InputError(
            f"{given} has the schedule it was trained with; only exact worlds, such as "
            "exact:digits, can be given another."
        )
    rest = str(given).removeprefix(PREFIX)
    plain = Path(rest).is_dir() or ":" not in rest
    whole = f"({schedule})" if "," in schedule else schedule
    return f"{given}{':' if plain else ','}schedule={whole}"


def folder_of(given: str | Path) -> Path:
    """Where what is drawn of a world goes unless told otherwise: `exact-digits` for exact:digits;
    of anything else, its own folder."""
    return Path(re.sub(r"[^\w.=]+", "-", str(given))) if is_exact(given) else Path(given)


def _data_of(name: str) -> DataConfig:
    data: DataConfig = WORLDS.trait(name, "data")
    return data


def _labelled(data: Dataset) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Every picture as float32 (N, C, H, W), and labels, if every class has a picture.

    Raises:
        DataError: a class without a training picture.
    """
    pictures = to_float(data.pictures(torch.arange(len(data))))
    if data.labels is None:
        return pictures, None
    sizes = torch.bincount(data.labels, minlength=len(data.classes))
    if not bool((sizes > 0).all()):
        empty = data.classes[int((sizes == 0).nonzero()[0])]
        raise DataError(
            f"'{data.name}' has no training picture of the class '{empty}', so nothing is known of "
            "it; raise the limit, or leave the class out."
        )
    return pictures, data.labels
