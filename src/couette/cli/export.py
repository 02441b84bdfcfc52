"""couette export: a model by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from couette.api.exporting import exported
from couette.cli.asking import parse_call
from couette.cli.options import normal_flags


def run(arguments: list[str]) -> int:
    return parse_call(export, "export", normal_flags(arguments, aliases={}))


def export(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    *,
    format: Literal["couette", "diffusers", "onnx"] = "couette",
    label: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    weights: Literal["average", "raw"] = "average",
    width: float | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Write the model of a run as a folder by itself, to keep or to pass on.

    It holds what drawing needs and nothing of the training; every verb takes it for a run. As
    diffusers it is a pipeline that diffusers opens (network unet2d, on pixels); as onnx a graph of
    any network, compared with torch before it is written. Their cards say how to draw.

    Args:
        run: a run, a checkpoint or a saved model.
        out: the new folder.
        format: whom it is for.
        label: with diffusers, the class that the pipeline draws; of any class where not given.
        dtype: of the weights in the file: float16 halves it.
        weights: their running average, where there is one, or the raw ones.
        width: of an average made now from the run's two (--training.second).
        as_json: one JSON object on stdout.
    """
    made = exported(
        run,
        out,
        format=format,
        label=label,
        dtype=dtype,
        average=weights == "average",
        width=width,
    )
    size = sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file())
    if as_json:
        answer = {"path": str(made.path), "bytes": size, "notes": made.notes}
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    for note in made.notes:
        print(note, file=sys.stderr)
    print(f"{made.path}: {size / 1e6:.1f} MB")
    return 0
