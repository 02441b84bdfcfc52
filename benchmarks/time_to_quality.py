"""Training time to a quality, on MNIST: the default recipe against the seeds' recipes.

DATA is MNIST's folder. The recipes of WHOLE (course-basic) are trained whole and judged; `default`
is trained for SHARES (20, 10, 4, 1) of the time that the first of them took, start-up and probe
included, and judged in the same way; no run remembers another's probe. What the other recipes would
take is extrapolated from the speed of STEPS (20) steps, and said so. Goal: the quality of the first
in a twentieth of its time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.networks import scratch, session, steps_of
from benchmarks.timing import Case, Goal, interleaved, report
from couette.places import data_roots

DATA = Path(os.environ.get("DATA", "mnist"))
COUNT = os.environ.get("COUNT", "1000")
SHARES = tuple(map(int, os.environ.get("SHARES", "20,10,4,1").split(",")))
STEPS = int(os.environ.get("STEPS", "20"))
WHOLE = os.environ.get("WHOLE", "course-basic").split(",")
LARGE = ("course-unet", "course-unet-time", "berkeley-time", "berkeley-class", "denoiser", "ddpm")


def couette(*arguments: str, fresh: bool = False) -> str:
    """Run the command, as a user would; what it prints. fresh: where no probe is remembered."""
    roots = data_roots()
    data = next((root for root in roots if root.is_dir()), roots[0]).absolute()
    home = {"COUETTE_CACHE": str(scratch()), "COUETTE_DATA": str(data)}
    done = subprocess.run(
        [sys.executable, "-m", "couette", *arguments],
        env={**os.environ, **(home if fresh else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"couette {' '.join(arguments)} failed: {done.stderr}")
    return done.stdout


def judged(run: Path) -> dict[str, Any]:
    """What `couette eval` finds."""
    found: dict[str, Any] = json.loads(couette("eval", str(run), "--count", COUNT, "--json"))
    return found


def run() -> None:
    """Train, judge, print the table."""
    folder = scratch()
    rows = []

    def trained(name: str, *arguments: str) -> float:
        begun = time.perf_counter()
        couette("train", str(DATA), "--out", str(folder / name), *arguments, fresh=True)
        return time.perf_counter() - begun

    def tried(name: str, *arguments: str) -> float:
        seconds = trained(name, *arguments)
        rows.append({"run": name, "seconds": seconds, **_figures(judged(folder / name))})
        return seconds

    whole, *_ = [tried(name, "--recipe", name) for name in WHOLE]
    # What a run takes beside its minutes is part of the share.
    beside = trained("default-short", "--recipe", "default", "--minutes", f"{1 / 60:.4f}") - 1
    for share in SHARES:
        minutes = max(whole / share - beside, 1.0) / 60
        tried(f"default-1-{share}", "--recipe", "default", "--minutes", f"{minutes:.4f}")
    # As they were published: compiling them would take longer than all the rest here.
    off = {"compile": "off"}
    runs = {name: session(DATA, recipe=name, runtime=off) for name in LARGE if name not in WHOLE}
    cases = [Case(name, steps_of(each), each.config.training.batch) for name, each in runs.items()]
    interleaved(cases, STEPS)
    for case, each in zip(cases, runs.values(), strict=True):
        pictures = (each.config.training.epochs or 1) * len(each.data.train)
        rows.append({"run": f"{case.name}, extrapolated", "seconds": pictures / case.speed})
    notes = {"count": int(COUNT), "steps timed": STEPS, "seconds beside training": beside}
    report("time_to_quality", rows, notes, [Goal(f"time to quality: {WHOLE[0]}", _times(rows), 20)])


def _times(rows: list[dict[str, Any]]) -> float | None:
    """How many times sooner than the first run another was at its distance; None for never."""
    whole = rows[0]
    ours = [row for row in rows if row["run"].startswith("default")]
    good = [row for row in ours if row["Fréchet"] <= whole["Fréchet"]]
    return max((whole["seconds"] / row["seconds"] for row in good), default=None)


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """Distance and accuracy of the averaged weights, or of the only ones there are."""
    (judged,) = found["samples"].values()
    answers = judged["judged"] or {}
    return {
        "Fréchet": judged["distances"]["frechet"],
        "floor": judged["floor"],
        "as asked": answers.get("accuracy"),
        "confidence": answers.get("confidence"),
    }
