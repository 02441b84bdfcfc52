"""couette eval: figures that say how good a model is, and pictures that show it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from couette import api
from couette.cli.asking import parse_call
from couette.cli.display import Ticker
from couette.cli.notes import heard
from couette.cli.options import DRAWING, normal_flags, spec_of, told
from couette.evaluation import Part
from couette.evaluation.encoders import Measured


def run(arguments: list[str]) -> int:
    return parse_call(evaluate, "eval", normal_flags(arguments, aliases=DRAWING), told(DRAWING))


def evaluate(
    run: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[str | None] = None,
    /,
    *,
    count: int | None = None,
    seed: int = 0,
    batch: int = 128,
    guidance: float | None = None,
    guider: tuple[str, ...] | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    weights: Literal["average", "raw", "both"] = "average",
    likelihood: bool = False,
    prompts: int = 200,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Measure a run against held-out pictures; the floor, real against real, comes first.

    Args:
        run: the run's folder, a saved model, or an exact world: exact:digits.
        data: the data to measure against; the run's own when not given.
        count: how many pictures to draw; from the size of the data when not given.
        seed: of the pictures drawn.
        batch: how many are drawn at once.
        guidance: guidance scale; the model's own when not given.
        guider: methods of guidance, as for `couette sample`.
        sampler: a sampler, with settings as in ddim:eta=0.5.
        steps: how many steps.
        weights: which to draw pictures with; the loss is always measured for both.
        likelihood: also bits per dimension of held-out pictures: the bound and, by the ODE, the
            likelihood itself; slow.
        prompts: of each kind, drawn to see whether they are followed: of a model that was trained
            on the captions of shapes.
        device: auto, cpu, cuda or mps.
        dtype: arithmetic; auto is bfloat16 on GPUs that have it, else float32.
        out: where report.json, report.txt and the figures go; RUN/evaluation when not given.
        as_json: the report as JSON on stdout.
    """

    def say(part: Part | Measured) -> None:
        if not as_json:
            for line in part.lines():
                print(line, flush=True)

    with heard() as notes, Ticker("opening the data") as ticker:
        report, paths = api.evaluate(
            run,
            data,
            count=count,
            seed=seed,
            batch=batch,
            weights=weights,
            likelihood=likelihood,
            prompts=prompts,
            device=device,
            dtype=dtype,
            out=out,
            progress=ticker,
            watch=say,
            guidance=guidance,
            guider=None if guider is None else tuple(map(spec_of, guider)),
            sampler=None if sampler is None else spec_of(sampler),
            steps=steps,
        )
    if as_json:
        found = report.json()
        found["notes"] = [*notes, *report.notes]
        json.dump(found, sys.stdout, ensure_ascii=False, indent=2)
        print()
    else:
        print(f"Figures: {paths[0].parent}")
    return 0
