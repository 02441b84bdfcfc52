"""couette search: pictures found by words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from couette import api
from couette.cli.asking import parse_call
from couette.cli.display import Ticker
from couette.cli.notes import heard
from couette.cli.options import normal_flags
from couette.render import grid, save
from couette.storage import check_writable


def run(arguments: list[str]) -> int:
    return parse_call(search, "search", normal_flags(arguments, aliases={}))


def search(
    run: tyro.conf.Positional[Path],
    words: tyro.conf.Positional[str],
    data: tyro.conf.Positional[str | None] = None,
    /,
    *,
    count: int = 16,
    device: str = "auto",
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Show the pictures that words describe best.

    Args:
        run: an encoder, trained with --recipe clip.
        words: what to look for, in quotes.
        data: a data set's name or a folder; the run's own when not given.
        count: how many pictures.
        device: auto, cpu, cuda or mps.
        out: a PNG file; RUN/found.png when not given.
        as_json: one JSON object on stdout.
    """
    path = out or run / "found.png"
    check_writable(path.parent)
    with heard() as notes, Ticker("opening the data") as ticker:
        found = api.search(run, words, data, count=count, device=device, progress=ticker)
    labels = [
        f"{text or name} ({near:.2f})"
        for name, text, near in zip(found.names, found.texts, found.near, strict=True)
    ]
    image = grid(found.pictures, labels=labels, title=words)
    save(image, path, text={"couette": f"the nearest to: {words}"})
    if as_json:
        rows = zip(found.names, found.texts, found.near, strict=True)
        pictures = [{"name": name, "text": text, "near": near} for name, text, near in rows]
        answer = {"path": str(path), "words": words, "pictures": pictures, "notes": notes}
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    for name, text, near in zip(found.names, found.texts, found.near, strict=True):
        print(f"{near:6.3f}  {name}  {text}")
    print(f"Pictures: {path}")
    return 0
