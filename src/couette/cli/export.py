"""couette export: a model by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from couette import api
from couette.cli.asking import parse_call
from couette.cli.options import normal_flags


def run(arguments: list[str]) -> int:
    return parse_call(export, "export", normal_flags(arguments, aliases={}))


def export(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    weights: Literal["average", "raw"] = "average",
    width: float | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Write the model of a run as a folder by itself, to keep or to pass on.

    It holds what drawing needs and nothing of the training; every verb takes it for a run.

    Args:
        run: a run, a checkpoint or a saved model.
        out: the new folder.
        dtype: of the weights in the file: float16 halves it.
        weights: their running average, where there is one, or the raw ones.
        width: of an average made now from the run's two (--training.second).
        as_json: one JSON object on stdout.
    """
    made = api.export(run, out, dtype=dtype, average=weights == "average", width=width)
    size = sum(file.stat().st_size for file in made.iterdir())
    if as_json:
        print(json.dumps({"path": str(made), "bytes": size}, ensure_ascii=False))
        return 0
    print(f"{made}: {size / 1e6:.1f} MB")
    return 0
