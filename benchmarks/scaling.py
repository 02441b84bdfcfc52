"""Cost against size: pictures, resolution, width, steps. The curve, not one point.

Steps of the real trainer, timed in turn. Also: resident memory as training goes on, and the speed
on data that do not fit the memory budget and are read from disk.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.networks import data_folder, picture_folder, session, steps_of
from benchmarks.timing import Case, Goal, interleaved, ratio, report

ROUNDS = int(os.environ.get("ROUNDS", "7"))
BATCH = 32
TINY = {"name": "unet", "size": "tiny"}


def case(name: str, folder: Path, **settings: Any) -> Case:
    """A run to be timed, and how long it took to prepare."""
    begun = time.perf_counter()
    given = {"network": TINY, "runtime": {"mode": "safe"}, **settings}
    run = session(folder, training={"batch": BATCH}, **given)
    return Case(name, steps_of(run), BATCH, {"ready": time.perf_counter() - begun})


def now() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run() -> None:
    """Time all, print the tables."""
    folder = data_folder(1000)
    families = {
        "pictures": [case(f"{n:,} pictures", data_folder(n)) for n in (1000, 8000, 60_000)],
        "resolution": [case(f"{side} px", data_folder(512, side)) for side in (16, 32, 64, 128)],
        "width": [
            case(f"width {width}", folder, network={**TINY, "width": width})
            for width in (32, 64, 128)
        ],
    }
    rows = []
    for cases in families.values():
        interleaved(cases, ROUNDS)
        rows += [
            {
                "case": each.name,
                "ready s": each.facts["ready"],
                "pictures/s": each.speed,
                "spread": each.spread,
                "to first": ratio(each, cases[0])[0],
            }
            for each in cases
        ]
    step = steps_of(session(folder, network=TINY, training={"batch": 8}))
    resident = {}
    for count in range(1, 301):
        step()
        if count in (50, 100, 200, 300):
            resident[count] = now()
    pictures = picture_folder(20_000)
    inside = case("in memory", pictures)
    outside = case("from disk", pictures, data={"memory_gb": 0.001})
    interleaved([inside, outside], 5 * ROUNDS)
    share, spread = ratio(outside, inside)
    notes = {
        **{f"resident MB after {count} steps": value for count, value in resident.items()},
        "from disk, share of the speed in memory": share,
        "± of it": spread,
    }
    report("scaling", rows, notes, [Goal("speed from disk, to that in memory", share, 0.9)])
