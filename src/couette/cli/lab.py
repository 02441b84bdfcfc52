"""couette lab: which sampler, on which grid, in how few steps."""

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
from couette.laboratory import Outcome


def run(arguments: list[str]) -> int:
    return parse_call(lab, "lab", normal_flags(arguments, aliases=DRAWING), told(DRAWING))


def lab(
    run: tyro.conf.Positional[Path],
    /,
    *,
    samplers: tuple[str, ...] = (),
    grids: tuple[str, ...] = (),
    steps: tuple[int, ...] = (2, 4, 6, 9, 14, 20, 36),
    search: tuple[int, ...] = (),
    count: int = 32,
    frechet: int = 0,
    guidance: tuple[float, ...] = (),
    label: str | None = None,
    seed: int = 0,
    batch: int = 64,
    evaluations: int | None = None,
    store: bool = False,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Compare samplers, grids and numbers of steps on a model, from the same noise.

    Stopped, it goes on where it was when the same command is given again.

    Args:
        run: a run, a checkpoint or a saved model.
        samplers: which, as in dpmpp-2m ddim:eta=0.5; all that fit the model when not given.
        grids: which, as in karras:rho=5; the model's own when not given.
        steps: how many, each in turn.
        search: numbers of steps to find a grid for; those grids are tried beside the others.
        count: pictures whose error against a fine solution is measured.
        frechet: samples for the Fréchet distance from held-out pictures; 0 leaves it out.
        guidance: scales of guidance, each in turn; the model's own when not given.
        label: a class by name or number; every class in turn when not given.
        seed: of the noise.
        batch: pictures drawn at once.
        evaluations: the winner may take at most so many.
        store: make the winner the run's own way to draw.
        device: auto, cpu, cuda or mps.
        dtype: arithmetic; auto is bfloat16 on GPUs that have it, else float32.
        out: where results and figures go; RUN/lab when not given.
        as_json: results as JSON on stdout.
    """

    def say(outcome: Outcome) -> None:
        if not as_json:
            print(_line(outcome), flush=True)

    with heard() as notes, Ticker("opening the model") as ticker:
        results, paths = api.lab(
            run,
            samplers=[spec_of(each) for each in samplers],
            grids=[spec_of(each) for each in grids],
            steps=steps,
            search=search,
            count=count,
            frechet=frechet,
            guidance=guidance,
            label=label,
            seed=seed,
            batch=batch,
            store=store,
            evaluations=evaluations,
            device=device,
            dtype=dtype,
            out=out,
            progress=ticker,
            watch=say,
        )
    best = results.best(evaluations)
    calm, noisy = (results.best(evaluations, noisy=each) for each in (False, True))
    if as_json:
        found = {
            "results": [each.json() for each in results],
            "best": best and best.json(),
            "best_deterministic": calm and calm.json(),
            "best_stochastic": noisy and noisy.json(),
            "notes": notes,
        }
        json.dump(found, sys.stdout, ensure_ascii=False, indent=2)
        print()
        return 0
    if best is not None:
        kept = "kept as the run's own" if store else "keep it with --store"
        print(f"Best: {_line(best)} ({kept})")
    for kind, winner in (("no noise", calm), ("noise", noisy)):
        if winner is not None and winner is not best:
            print(f"Best of those that draw {kind}: {_line(winner)}")
    print(f"Figures: {paths[0].parent if paths else results.path.parent}")
    return 0


def _line(outcome: Outcome) -> str:
    if outcome.refused is not None:
        return f"{outcome.trial}: {outcome.refused}"
    parts = [f"{outcome.evaluations} evaluations"]
    if outcome.error is not None:
        parts.append(f"error {outcome.error:.4f}")
    if outcome.frechet is not None:
        parts.append(f"Fréchet {outcome.frechet:.4f}")
    if outcome.accuracy is not None:
        parts.append(f"{outcome.accuracy:.1%} as asked")
    if outcome.coverage is not None:
        parts.append(f"coverage {outcome.coverage:.1%}")
    grid = outcome.grid.partition(":")[0]
    guided = "" if outcome.guidance == 1 else f", guidance {outcome.guidance:g}"
    return f"{outcome.sampler} on {grid}, {outcome.steps} steps{guided}: {', '.join(parts)}"
