"""Put an exported model into the package as `starter`: python scripts/starter.py MODEL.

Its card (src/couette/starter/README.md) is written by hand and stays.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from couette.model import CONFIG, TOKENIZER, WEIGHTS
from couette.places import STARTER

HOME = Path(__file__).parents[1] / "src" / "couette" / STARTER


def main() -> None:
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else HOME
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if given.resolve() != HOME.resolve():
            shutil.copyfile(given / name, HOME / name)
    names = (CONFIG, TOKENIZER, WEIGHTS, "README.md")
    digests = {name: hashlib.sha256((HOME / name).read_bytes()).hexdigest() for name in names}
    text = json.dumps(digests, indent=2) + "\n"
    (HOME / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
