"""Markdown from plain text: paragraphs, tables, lists, anchors."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

WIDTH = 100

WHEN = "When to use it"

HELD = "\N{NO-BREAK SPACE}"

AND = " and their like"


def prose(text: str) -> str:
    """Paragraphs of a docstring as Markdown, what it says of its use in one of its own."""
    flat = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
    apart = re.sub(rf"(?:^|\s+){WHEN}: ", f"\n\n**{WHEN}:** ", "\n\n".join(flat))
    return "\n\n".join(map(wrap, apart.strip().split("\n\n")))


def wrap(text: str) -> str:
    """Lines of the page: code stays whole, and none begins as a list or a heading does."""
    held = re.sub(r"`[^`]*`", lambda code: code.group().replace(" ", HELD), text)
    lines = [
        line.replace(HELD, " ")
        for line in textwrap.wrap(held, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join(re.sub(r"^(\d*)([-+*#>.)])(?=\s)", r"\1\\\2", line) for line in lines)


def bullets(entries: Mapping[str, str]) -> str:
    marked = (
        f"{', '.join(f'`{name}`' for name in names.removesuffix(AND).split(', '))}"
        f"{AND if names.endswith(AND) else ''}: {said}."
        for names, said in entries.items()
    )
    return "\n".join(textwrap.indent(wrap(each), "  ").replace("  ", "- ", 1) for each in marked)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def slug(heading: str) -> str:
    """The anchor that Git hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
