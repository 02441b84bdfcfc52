"""`make demo`: train on the embedded real digits for a minute, then show that it worked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from couette.cli import main

RUN = Path("runs/demo")


def call(*arguments: str) -> None:
    """Run one command, showing it; ends the demo where it fails."""
    print(f"\n$ couette {' '.join(arguments)}", flush=True)
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            sys.exit(end.code)


if RUN.exists():
    shutil.rmtree(RUN)
call("train", "digits", "--out", str(RUN))
sheet = RUN / "pictures" / "digits.png"
call("sample", str(RUN), "--count", "100", "--label", "each", "--out", str(sheet))
print(
    f"""
The digits it writes:       {sheet}
How it learned, in grids:   {RUN / "samples"}

Next, for instance:
  .venv/bin/couette sample {RUN} --count 20 --label 7 --format gif
  .venv/bin/couette show {RUN} reverse
  .venv/bin/couette eval {RUN}
  .venv/bin/couette train FOLDER_OF_PICTURES --minutes 10"""
)
