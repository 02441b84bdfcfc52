"""Peak memory of training against batch and picture size, with and without recomputed blocks.

Each row is a process of its own: the peak of its resident memory, above that of the same process
before its first step.
"""

from __future__ import annotations

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor

from benchmarks.timing import report

BATCHES = (16, 64, 256)
SIDES = (16, 32, 64)


def resident() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(batch: int, side: int, recompute: bool) -> tuple[float, float]:
    """MB before the first step, and at the peak of three."""
    from benchmarks.networks import data_folder, session, steps_of

    run = session(
        data_folder(512, side),
        network={"name": "unet", "size": "small"},
        training={"batch": batch},
        runtime={"mode": "safe", "recompute": recompute},
    )
    before = resident()
    step = steps_of(run)
    for _ in range(3):
        step()
    return before, resident()


def run() -> None:
    """Measure all, print the table."""
    rows = []
    shapes = [(64, side) for side in SIDES] + [(batch, 32) for batch in BATCHES if batch != 64]
    for batch, side in sorted(shapes):
        row: dict[str, float | int] = {"batch": batch, "side": side}
        for name, recompute in (("kept, MB", False), ("recomputed, MB", True)):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                before, most = pool.submit(peak, batch, side, recompute).result()
            row[name] = most - before
        row["share"] = row["recomputed, MB"] / max(row["kept, MB"], 1e-9)
        rows.append(row)
    report("memory", rows, {"network": "unet small, muon and average included"})
