"""`make docs`: draw the pictures of docs/results.md again, from the runs named there.

    python scripts/figures.py [RUNS]        RUNS holds the runs by their names below (default: runs)

Figures that need no run are always drawn; those of a run that is absent are left as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from couette.cli import main

PICTURES = Path("docs/pictures")
PLAIN = {
    "noise": (),
    "random-variables": (),
    "schedule": (),
}
RECIPES = {
    "ddpm": (("noising", "--data", "digits", "--naive"),),
    "denoiser": (("sigmas", "--data", "digits"),),
    "moons": (("dye",),),
}
RUNS = {
    "demo": (("sheet",), ("reverse",), ("loss",), ("real",), ("network",)),
    "default": (("sheet",), ("reverse",), ("loss",), ("real",), ("predictions",)),
    "course-basic": (("predictions",), ("steps",), ("sheet",), ("loss",), ("network",)),
    "course-unet": (("sheet",), ("loss",), ("network",)),
    "ddpm": (("sheet",), ("reverse",), ("loss",)),
    "denoiser": (("sigmas",), ("progress",), ("loss",)),
    "berkeley-time": (("progress",), ("loss",)),
    "berkeley-class": (("progress",), ("sheet",), ("loss",)),
    "points": (("dye",),),
}


def show(*words: str) -> None:
    """Run `couette show`; a figure that can't be drawn is said and passed over."""
    try:
        main(("show", *words))
    except SystemExit as end:
        if end.code:
            print(f"left out: couette show {' '.join(words)}")


def draw(runs: Path) -> None:
    """All figures, each target in a folder of its own."""
    for topic, flags in PLAIN.items():
        show(topic, *flags, "--out", str(PICTURES / "plain"))
    for recipe, topics in RECIPES.items():
        for topic in topics:
            show(recipe, *topic, "--out", str(PICTURES / recipe))
    for run, topics in RUNS.items():
        for topic in topics if (runs / run).exists() else ():
            show(str(runs / run), *topic, "--out", str(PICTURES / f"run-{run}"))


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
