"""couette replay: a picture drawn again from what is written in it."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from couette import api, generate
from couette.cli import edit as editing
from couette.cli.asking import parse as read
from couette.cli.options import DRAWING, documented, normal_flags, spec_of
from couette.cli.pictures import Drawing, digest_of, written
from couette.cli.sample import report, sample, weights_of
from couette.config import SamplingConfig, Spec
from couette.contracts import Ask
from couette.editing import EDITS
from couette.errors import CouetteError, DataError, InputError
from couette.model import Model
from couette.places import STARTER
from couette.render import read_text
from couette.runs import RunFolder, find_model
from couette.validation import parse

HELP = """couette replay PICTURE.png [flags]

Draws a picture again from the settings that are written in it. Its model is looked for in the
folders above it, or given as --model; the pictures that an edit was made on beside it, or given as
--picture. A run that guided it is given again, by --guider. Any other flag of `couette sample`, or
of the edit, changes a setting on the way.

The new picture is the old one at any --batch, but for rounding (1e-5 in float32). It is drawn in
the arithmetic of the old one; bfloat16 is slow where a processor has no units for it, and --dtype
float32 gives nearly the same picture.
"""

_STRICT = ConfigDict(frozen=True, extra="forbid")
_OWN: dict[str, Any] = {
    "guidance": (
        Annotated[
            float | None,
            Field(
                description="guidance scale; 1 is off, 0 the unconditional. The picture's own when "
                "not given"
            ),
        ],
        None,
    ),
    "model": (
        Annotated[Path | None, Field(description="the model, where it is not above the picture")],
        None,
    ),
    "picture": (
        Annotated[tuple[Path, ...], Field(description="the pictures that an edit was made on")],
        (),
    ),
}
_LEFT = ("model", "schedule", "weights", "toward", "weight")
"""Flags of `sample` that a picture says for itself."""


class Told(BaseModel):
    """What is written in a picture."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    seed: int
    first: int = 0
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    labels: tuple[str | None, ...] = ()
    prompts: tuple[str | None, ...] = ()
    toward: tuple[tuple[str, float], ...] = ()
    sampling: SamplingConfig
    step: int = 0
    weights: str | None = None
    enlarged: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    model: str
    edit: Edited | None = None


class Given(BaseModel):
    """A file that an edit was made with."""

    name: str
    sha256: str = ""


class Edited(BaseModel):
    """The edit that a picture came of."""

    name: str
    settings: dict[str, Any] = {}
    labels: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    pictures: tuple[Given, ...] = ()
    files: tuple[Given, ...] = ()


Told.model_rebuild()


def run(arguments: list[str]) -> int:
    arguments = normal_flags(arguments, aliases=DRAWING)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    path, flags = Path(arguments[0]), arguments[1:]
    told, index = _told(path)
    if told.edit is None:
        return _sampled(path, told, flags)
    return _edited(path, told, told.edit, index, flags)


def _told(path: Path) -> tuple[Told, int | None]:
    """What is written in a picture, and which of several it is.

    Raises:
        DataError: no PNG, or nothing of Couette's in it.
    """
    text = read_text(path)
    if not text.get("couette", "").startswith("{"):  # previews and figures only name themselves
        raise DataError(
            f"{path} does not say how it was made; only pictures that `couette sample` and "
            "`couette edit` wrote with their metadata can be drawn again."
        )
    try:
        fields = json.loads(text["couette"])
    except (ValueError, RecursionError):
        raise DataError(f"What {path} says of how it was made is damaged.") from None
    index = text.get("couette-index", "")
    return parse(Told, fields, f"what is written in {path}"), int(
        index
    ) if index.isdecimal() else None


def _sampled(path: Path, told: Told, flags: list[str]) -> int:
    begun = time.monotonic()
    shared = documented(sample, leave=_LEFT)
    defaults = {
        "seed": told.seed,
        "count": told.count,
        "label": None,
        "prompt": None,
        "dtype": told.dtype,
    }
    fields: dict[str, Any] = {
        n: (kind, defaults.get(n, value)) for n, (kind, value) in shared.items()
    }
    fields |= _OWN
    found = read(
        create_model("Flags", __config__=_STRICT, **fields),
        "couette replay",
        flags,
        description=HELP,
    )
    if found.picture:
        raise InputError(f"{path} was drawn from noise alone; leave out --picture.")
    if told.enlarged and found.enlarge is None:
        raise InputError(
            f"{path} was enlarged by a second model; give that as --enlarge, or another picture."
        )
    if found.guider is None:
        _guides_given(path, told.sampling)
    source, model = _model(path, told, found.model, found.device, found.dtype)
    second = (
        None
        if found.enlarge is None
        else api.load(found.enlarge, device=found.device, dtype=found.dtype)
    )
    enlarged = None if second is None else digest_of(second.network)
    sampling = _changed(model, told.sampling, found)
    if found.label is not None or found.prompt is not None:
        asked = generate.ask(model, found.count, found.label, sampling, found.prompt)
    else:
        asked = _asked(model, told, found.count)
    weights = weights_of(source, told.weights or "average")
    drawing = Drawing(model, sampling, found.seed, *weights, enlarged)
    where = (source, found.out, found.format, found.batch, found.metadata)
    paths = written(drawing, asked, *where, told.first, second)
    seconds = time.monotonic() - begun
    report(paths, len(asked), found.seed, sampling, seconds, [], found.as_json)
    return 0


def _asked(model: Model, told: Told, count: int) -> list[Ask]:
    """What each picture was asked to show; beyond those that there were, in turn."""
    made = []
    for i in range(count):
        label = told.labels[i % len(told.labels)] if told.labels else None
        ask = Ask(None if label is None else _label(model, label))
        if told.prompts:
            ask = ask._replace(words=told.prompts[i % len(told.prompts)])
        if told.toward:
            words, weight = told.toward[i % len(told.toward)]
            ask = ask._replace(toward=words, weight=weight)
        made.append(ask)
    return made


def _label(model: Model, name: str) -> int:
    # A classifier that guides may bring classes of its own: then the number was written.
    return int(name) if not model.conditioner.classes else model.conditioner.find(name)


def _changed(model: Model, own: SamplingConfig, found: Any) -> SamplingConfig:
    """How the picture was drawn, with what the flags change of it."""
    fields: dict[str, Any] = own.model_dump()
    for name in ("guidance", "negative", "steps", "reuse"):
        if getattr(found, name) is not None:
            fields[name] = getattr(found, name)
    for name in ("sampler", "grid", "threshold"):
        if getattr(found, name) is not None:
            fields[name] = spec_of(getattr(found, name))
    if found.guider is not None:
        fields["guider"] = tuple(map(spec_of, found.guider))
    return generate.sampling_of(model, **fields)


def _guides_given(path: Path, sampling: SamplingConfig) -> None:
    """Refuse to draw without the runs that a picture was guided by: it tells their names alone.

    Raises:
        InputError: one is not here; with the flag to add.
    """
    runs = [str(each.settings["run"]) for each in sampling.guider if "run" in each.settings]
    if all(map(_is_model, runs)):
        return
    again = " ".join(
        shlex.quote(str(each.with_settings(run=f"PATH/{each.settings['run']}")))
        if "run" in each.settings
        else shlex.quote(str(each))
        for each in sampling.guider
    )
    raise InputError(
        f"{path} was guided by {' and '.join(runs)}, and pictures hold no paths; say where that "
        f"is: --guider {again}."
    )


def _is_model(run: str) -> bool:
    try:
        find_model(Path(run))
    except (CouetteError, OSError, ValueError):  # what a picture says may be no path at all
        return False
    return True


def _edited(path: Path, told: Told, edit: Edited, index: int | None, flags: list[str]) -> int:
    EDITS[edit.name]
    sampling = told.sampling
    defaults = {
        **{name: getattr(sampling, name) for name in ("guidance", "negative", "steps", "reuse")},
        **{name: str(getattr(sampling, name)) for name in ("sampler", "grid", "threshold")},
        "guider": tuple(map(str, sampling.guider)) or None,
        "seed": told.seed,
        "count": told.count,
        "label": edit.labels,
        "prompt": edit.prompts or None,
        "weights": told.weights or "average",
        "dtype": told.dtype,
        "format": "grid" if index is None else "png",
    }
    beside = {each.name: each for each in edit.files}
    kept = editing.with_files(
        edit.settings, lambda name: str(_beside(path, beside.get(name) or Given(name=name)))
    )
    own = EDITS.check(Spec(name=edit.name, **kept))
    found, settings = editing.parsed(edit.name, flags, defaults, own, _OWN)
    if found.guider == defaults["guider"]:
        _guides_given(path, sampling)
    source, _ = _model(path, told, found.model, found.device, found.dtype)
    pictures = found.picture or [_beside(path, each, "--picture") for each in edit.pictures]
    pictures = list(pictures)
    return editing.carry(source, edit.name, pictures, found, settings, only=index)


def _beside(path: Path, wanted: Given, flag: str = "") -> Path:
    """A file that an edit was made with: beside the picture that came of it, or in this folder.

    Raises:
        DataError: it is not there, or is another by now.
    """
    name = Path(wanted.name).name
    there = [p for p in (path.resolve().parent / name, Path(name)) if p.is_file()]
    for place in there:
        if hashlib.sha256(place.read_bytes()).hexdigest() == wanted.sha256:
            return place
    what = "has changed since" if there else "is not there"
    how = f"give it as {flag}" if flag else f"put it beside {path}"
    raise DataError(f"{path} was made with {name}, which {what}; {how}.")


def _model(
    path: Path, told: Told, given: Path | None, device: str, dtype: str
) -> tuple[Path, Model]:
    """The model that a picture was drawn with, and where it lies.

    Raises:
        InputError: it is not in the folders above the picture.
    """
    average = told.weights != "raw"
    if given is not None:
        return given, api.load(given, average=average, device=device, dtype=dtype)
    above = [each for folder in path.resolve().parents for each in _places(folder, told.step)]
    for place in (*above, Path(STARTER)):
        try:
            model = api.load(place, average=average, device=device, dtype=dtype)
        except CouetteError:
            continue
        if digest_of(model.network) == told.model:
            return place, model
    raise InputError(
        f"The model that {path} was drawn with (hash {told.model[:10]}) is not in the folders "
        "above it; give it as --model."
    )


def _places(folder: Path, step: int) -> list[Path]:
    """Models that may lie in a folder: its own, and its checkpoint of a step."""
    if (folder / "model.json").exists():
        return [folder]
    held = RunFolder(folder)
    if not held.exists():
        return []
    return [folder, *(each for each in held.numbered() if each.name.endswith(f"_{step}"))]
