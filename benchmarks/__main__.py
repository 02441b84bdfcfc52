"""python -m benchmarks [NAME …]: run all benchmarks, or those named. `recipes`, a comparison that
takes hours, and `chart`, which draws what the others printed, only run where they are named."""

from __future__ import annotations

import importlib
import sys

ALL = (
    "train_speed",
    "sample_speed",
    "time_to_quality",
    "start_up",
    "memory",
    "scaling",
    "editing",
    "latents",
)

NAMED = ("recipes", "chart")


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in (*ALL, *NAMED)]
    if unknown:
        print(f"There is no benchmark '{unknown[0]}'; choose from: {', '.join((*ALL, *NAMED))}.")
        return 2
    for name in sys.argv[1:] or ALL:
        print(f"## {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
