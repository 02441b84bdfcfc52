"""What latents cost a training step: goal, at most 5 % more than the bare step.

A default network for the latents of an autoencoder, which is untrained, since only speed is
measured. Three runs of it take turns: `bare`, whose batch of latents is at hand; `cached`, whose
latents were encoded once and are read and sampled anew at each visit, as runs do; and `encoded`,
which takes its batch through the autoencoder in every step, as runs that crop do. Their batches are
timed by themselves, too: on a noisy machine that tells more than the difference of steps.

SIDE is the pictures', of which the autoencoder makes latents of a quarter of the side.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.networks import DEVICE, data_folder, session, steps_of
from benchmarks.timing import Case, Goal, interleaved, ratio, report
from couette.recipes import Session
from couette.training import Stream

BATCH = int(os.environ.get("BATCH", "64"))
ROUNDS = int(os.environ.get("ROUNDS", "15"))
SIDE = int(os.environ.get("SIDE", "64"))
COUNT = int(os.environ.get("COUNT", "512"))


def autoencoder(data: Path, **settings: Any) -> Path:
    """The checkpoint of an autoencoder before its first step."""
    given = {"network": {"name": "vae", "factor": 4}, **settings}
    return session(data, recipe="autoencoder", **given).save().path


def runs(data: Path, codec: Path, **settings: Any) -> dict[str, Session]:
    """The runs that are compared, alike but for where their latents come from."""
    given = {"codec": f"latent:run={codec}", **settings}
    made = {name: session(data, **given) for name in ("bare", "cached", "encoded")}
    batch = made["bare"].trainer.batches(0)
    made["bare"].trainer.batches = lambda step: batch
    cast(Stream, made["encoded"].trainer.batches).latents = None
    return made


def batches_of(run: Session) -> Callable[[], Any]:
    """One batch of a run a call."""
    steps = count()
    return lambda: run.trainer.batches(next(steps))


def run() -> None:
    """Time all, print the table."""
    data = data_folder(COUNT, SIDE)
    made = runs(data, autoencoder(data), training={"batch": BATCH})
    cases = [Case(name, steps_of(each), BATCH) for name, each in made.items()]
    interleaved(cases, ROUNDS, warm=3)
    batches = [Case(name, batches_of(each), BATCH) for name, each in made.items()]
    interleaved(batches, ROUNDS, warm=3)
    bare, cached, _ = cases
    rows = []
    for case, batch in zip(cases, batches, strict=True):
        times, spread = ratio(bare, case)
        row = {"a step, ms": 1e3 * BATCH / case.speed, "its batch, ms": 1e3 * BATCH / batch.speed}
        rows.append({"case": case.name, **row, "times bare": times, "±": spread})
    one = made["cached"]
    shape = "×".join(map(str, one.models["weights"].shape))
    notes = {
        "threads": torch.get_num_threads(),
        "latents": f"{BATCH} of {shape}, from {SIDE} px",
        "network": f"{one.config.network}, {one.runtime.what}",
    }
    where = "a GPU" if DEVICE == "cuda" else "a processor"
    goal = Goal(f"latents on {where}: a step without them", ratio(cached, bare)[0], 1 / 1.05)
    report("latents", rows, notes, [goal])
