"""How many times as fast as others, beside the goals: a chart of what the benchmarks printed.

LOG (benchmarks.log) is what they printed, all of it or some: `make bench > benchmarks.log`. The
chart goes to OUT (docs/benchmarks.png).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from couette.render import save
from couette.render.style import ALARM, COLOURS, FAINT, INK, drawn, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = Path(os.environ.get("LOG", "benchmarks.log"))
OUT = Path(os.environ.get("OUT", "docs/benchmarks.png"))


def goals(text: str) -> list[dict[str, Any]]:
    """The goals in a log, the last of each name."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith('{"benchmark"'):
            for goal in json.loads(line).get("goals", ()):
                found[goal["what"]] = goal
    return list(found.values())


@drawn
def chart(given: list[dict[str, Any]]) -> Figure:
    """A bar for each that was reached, a mark where the goal is; of one scale, logarithmic."""
    figure, (axes,) = panels(1, 1, height=0.5 + 0.42 * len(given))
    reached = [goal["reached"] or 1.0 for goal in given]
    met = [goal["reached"] is not None and goal["reached"] >= goal["wanted"] for goal in given]
    places = range(len(given))
    axes.barh(
        places,
        [value - 0.5 for value in reached],
        left=0.5,
        height=0.55,
        color=[COLOURS[0] if good else FAINT for good in met],
    )
    for place, goal, value in zip(places, given, reached, strict=True):
        axes.plot([goal["wanted"]] * 2, [place - 0.38, place + 0.38], color=ALARM, linewidth=2)
        text = "not reached" if goal["reached"] is None else f"{value:.3g}"
        axes.text(max(value, goal["wanted"]) * 1.08, place, text, va="center", color=INK)
    axes.set_xscale("log")
    axes.set_xlim(0.5, 10 * max(*reached, *(goal["wanted"] for goal in given)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(places, [goal["what"] for goal in given])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("times as fast (bar); the goal (mark)")
    return figure


def run() -> None:
    """Draw the chart."""
    save(chart(goals(LOG.read_text(encoding="utf-8"))), OUT)
    print(OUT)
