"""Run the commands of a page of docs that make its pictures.

    DIGITS=RUN EMOJI=RUN ENCODER=RUN/encoder python scripts/page.py docs/editing.md [WORD]

Only blocks that begin with ```sh are run, one command a line, from the repository's root; with a
word, those lines that hold it. What models the page speaks of is said by environment variables.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(page: Path) -> list[str]:
    """The lines of a page's ```sh blocks, those that end in a backslash joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in commands(Path(sys.argv[1])):
        if word in line:
            print(f"$ {line}", flush=True)
            subprocess.run(line, shell=True, check=True, cwd=ROOT, env={**os.environ, "PATH": path})
    return 0


if __name__ == "__main__":
    sys.exit(main())
