"""couette edit: pictures changed, combined or completed by a model."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, create_model

from couette import api, generate
from couette.api.editing import edit_spec, finished, reader_of, scene_of
from couette.cli.asking import parse as read
from couette.cli.notes import heard
from couette.cli.options import DRAWING, documented, normal_flags, spec_of, take_flag, take_flags
from couette.cli.pictures import Drawing, placed
from couette.cli.sample import sample, weights_of
from couette.config import Spec
from couette.data import to_uint8
from couette.editing import EDITS, Edited, Scene, edits_of, frames, sheet
from couette.errors import InputError
from couette.registry import Registry
from couette.render import grid, save, save_gif
from couette.storage import write_bytes

HELP = """couette edit MODEL EDIT [PICTURE …] [flags]

Edits:

{edits}

`couette edit MODEL EDIT --help` tells an edit's flags. Views, partitions and operators:
`couette list views`, `couette list partitions`, `couette list operators`.
"""

_STRICT = ConfigDict(frozen=True, extra="forbid")
_NOT_SHARED = ("model", "label", "toward", "weight", "count", "schedule", "enlarge")
"""Flags of `sample` that an edit has otherwise, or not."""

_OWN: dict[str, Any] = {
    "count": (Annotated[int, Field(description="how many pictures, in each row")], 4),
    "label": (
        Annotated[
            tuple[str, ...],
            Field(description="classes by name or number: for each view or part, else in turn"),
        ],
        (),
    ),
    "judge": (
        Annotated[
            str | None,
            Field(
                description="what says how many pictures are what was asked: data, by whose "
                "classifier, or, for prompts, an encoder's run"
            ),
        ],
        None,
    ),
}
_DRAWN = ("guidance", "negative", "sampler", "guider", "grid", "steps", "threshold", "reuse")


def run(arguments: list[str]) -> int:
    words, flags = _words(normal_flags(arguments, aliases=DRAWING))
    if len(words) < 2:
        if "-h" in flags or "--help" in flags or not words:
            print(HELP.format(edits=_summaries()))
            return 0
        raise InputError(
            f"'couette edit {words[0]}' needs an edit: {', '.join(EDITS)}; see couette edit --help."
        )
    model, name, *pictures = words
    EDITS[name]
    found, settings = parsed(name, flags)
    return carry(Path(model), name, [Path(each) for each in pictures], found, settings)


def carry(
    model: Path,
    name: str,
    pictures: list[Path],
    found: Any,
    settings: dict[str, Any],
    only: int | None = None,
) -> int:
    """Carry an edit out, and write what came of it.

    Args:
        model: a run, a checkpoint, a saved model or an exact world.
        name: of the edit.
        pictures: that it is made on.
        found: the flags that all edits share.
        settings: the edit's own that were given.
        only: which of the pictures, as files of their own, is to be written; all if not given.
    """
    begun = time.monotonic()
    if found.format == "gif" and found.judge is not None:
        raise InputError("A film is not judged; leave out --judge, or give another --format.")
    with heard() as said:
        average = found.weights == "average"
        held = api.load(model, average=average, device=found.device, dtype=found.dtype)
        scene, notes = scene_of(
            held,
            name,
            pictures,
            count=found.count,
            label=found.label,
            prompt=found.prompt or (),
            seed=found.seed,
            settings=_drawing(found),
        )
        spec = edit_spec(name, settings)
        edits = edits_of(scene, spec)
        again = _again(spec, scene, pictures)
        weights = weights_of(model, found.weights)
        told = Drawing(held, scene.sampling, found.seed, *weights, edit=again)
        asked = edits[0].asked
        path = placed(told, asked, model, found.out, found.format, found.metadata)
        if found.format == "gif":
            save_gif([image for each in edits for image in frames(scene, each)], path)
        else:
            reads = None if found.judge is None else reader_of(scene, found.judge)
            rows = [finished(scene, each, found.batch, reads) for each in edits]
            notes = (*notes, *(note for row in rows for note in row.notes))
            _write(rows, found.format, path, told.text(asked) if found.metadata else {}, only)
    seconds = time.monotonic() - begun
    how = generate.said(edits[0].sampling or scene.sampling)
    if found.as_json:
        fields = {"path": str(path), "count": found.count, "seed": found.seed, "drawn": how}
        print(json.dumps({**fields, "seconds": round(seconds, 2), "notes": [*said, *notes]}))
        return 0
    times = "" if len(edits) == 1 else f"{len(edits)} × "
    print(f"{name}: {times}{found.count} pictures, seed {found.seed}, in {seconds:.1f} s: {path}")
    for note in (f"Drawn with {how}.", *said, *notes):
        print(f"    {note}")
    return 0


def _drawing(found: Any) -> dict[str, Any]:
    """Those settings of how pictures are drawn that were given as flags."""
    given = {key: value for key in _DRAWN if (value := getattr(found, key)) is not None}
    for key in ("sampler", "grid", "threshold"):
        if key in given:
            given[key] = spec_of(given[key])
    if "guider" in given:
        given["guider"] = tuple(map(spec_of, given["guider"]))
    return given


def _again(spec: Spec, scene: Scene, pictures: list[Path]) -> dict[str, Any]:
    """What `couette replay` needs to make the edit again; of files their names alone."""
    files: list[Path] = []

    def bare(path: str) -> str:
        files.append(Path(path))
        return Path(path).name

    settings = with_files(json.loads(json.dumps(spec.settings, default=str)), bare)
    return {
        "name": spec.name,
        "settings": settings,
        "labels": list(scene.labels),
        "prompts": list(scene.prompts),
        "pictures": [_known(each) for each in pictures],
        "files": [_known(each) for each in files],
    }


def with_files(settings: Any, change: Callable[[str], str], key: str = "") -> Any:
    """Settings with every path in them changed: those of a `mask`, or of a part's `file`."""
    if isinstance(settings, dict):
        return {name: with_files(value, change, name) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [with_files(each, change, key) for each in settings]
    if not isinstance(settings, str):
        return settings
    if key in ("mask", "file"):
        return change(settings)
    return re.sub(r"(?<=[:,]file=)[^,]+", lambda found: change(found[0]), settings)


def _known(file: Path) -> dict[str, str]:
    return {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _write(
    rows: list[Edited], format: str, path: Path, text: dict[str, str], only: int | None
) -> None:
    if format == "grid":
        save(sheet(rows), path, text=text)
        return
    drawn = [picture for row in rows for picture in row.pictures]
    if format == "png":
        for index, picture in enumerate(drawn):
            if only not in (None, index):
                continue
            own = {**text, "couette-index": str(index)} if text else {}
            save(
                grid(picture[None], columns=1, scale=1, pad=0), path / f"{index:05d}.png", text=own
            )
        return
    arrays = {
        row.name or f"row{number}": to_uint8(row.pictures).permute(0, 2, 3, 1).numpy()
        for number, row in enumerate(rows)
    }
    buffer = io.BytesIO()
    # The stub takes any name for `allow_pickle`; the arrays are plain bytes.
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def _words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first flag, and the rest."""
    first = next((i for i, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    return arguments[:first], arguments[first:]


def parsed(
    name: str,
    flags: list[str],
    defaults: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The flags that all edits share, and the edit's own that were given.

    Args:
        name: of the edit.
        flags: as they were typed.
        defaults: of the shared flags, where they are not the usual.
        settings: of the edit, where no flag says otherwise.
        more: further flags, as pydantic fields.
    """
    own = EDITS.settings(name).model_fields
    specs, flags = _specs(own, flags)
    settings = settings or {key: info.default for key, info in own.items()}
    fields: dict[str, Any] = {
        key: (Annotated[info.annotation, info], settings[key])
        for key, info in own.items()
        if key not in specs
    }
    shared = {
        key: (kind, (defaults or {}).get(key, value))
        for key, (kind, value) in {**shared_flags(), **(more or {})}.items()
    }
    clash = fields.keys() & shared.keys()
    assert not clash, f"the edit '{name}' has settings of common names: {clash}"
    fields |= shared
    shape = create_model("Flags", __config__=_STRICT, **fields)
    about = (inspect.getdoc(EDITS[name]) or "").partition("\n\nRaises:")[0]
    for key in specs:
        about += f"\n\n--{key.replace('_', '-')}: {own[key].description}."
    found = read(shape, f"couette edit … {name}", flags, description=about)
    changed = {
        key: getattr(found, key)
        for key in own.keys() - specs.keys()
        if getattr(found, key) != own[key].default
    }
    parts = {key: value or settings[key] for key, value in specs.items()}
    return found, {**changed, **{k: v for k, v in parts.items() if v != own[k].default}}


def shared_flags() -> dict[str, Any]:
    """The flags of every edit, as fields of settings: those of `sample`, and their own."""
    return {**documented(sample, leave=_NOT_SHARED), **_OWN}


def _specs(own: Any, flags: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that name a part, as `--view identity rotate:degrees=30`, out of the flags."""
    found: dict[str, Any] = {}
    for name, info in own.items():
        if "Spec" not in str(info.annotation):
            continue
        take = take_flags if "tuple" in str(info.annotation) else take_flag
        found[name], flags = take(flags, name.replace("_", "-"))
    return found, flags


def _summaries(family: Registry[Any] = EDITS) -> str:
    width = max(map(len, family))
    return "\n".join(f"  {name:<{width}}  {family.summary(name)}" for name in family)
