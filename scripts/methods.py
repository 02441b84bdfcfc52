"""`make docs`: write docs/methods.md, every method there is, from the registries.

    python scripts/methods.py

A part's text is its docstring, its settings are its signature, and its facts are the traits that it
declares. What has no part to stand at, because it is missing here, is in scripts/elsewhere.py.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import couette.codecs
import couette.data
import couette.denoiser.losses
import couette.denoiser.parameterizations
import couette.denoiser.times
import couette.denoiser.told
import couette.denoiser.weightings
import couette.editing
import couette.editing.operators
import couette.editing.partitions
import couette.editing.views
import couette.exact.worlds
import couette.figures
import couette.guidance
import couette.guidance.thresholds
import couette.networks
import couette.recipes
import couette.samplers
import couette.schedules
import couette.schedules.grids
import couette.training.pairings
from couette.cli.list import FAMILIES
from couette.contracts import Objective
from couette.registry import SAMPLERS, Registry
from elsewhere import elsewhere
from markup import prose, slug, table, wrap

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"

CHAPTERS: Mapping[str, object] = {
    "samplers": couette.samplers,
    "grids": couette.schedules.grids,
    "schedules": couette.schedules,
    "parameterizations": couette.denoiser.parameterizations,
    "weightings": couette.denoiser.weightings,
    "losses": couette.denoiser.losses,
    "times": couette.denoiser.times,
    "pairings": couette.training.pairings,
    "told": couette.denoiser.told,
    "objectives": Objective,
    "guiders": couette.guidance,
    "thresholds": couette.guidance.thresholds,
    "networks": couette.networks,
    "codecs": couette.codecs,
    "data": couette.data,
    "worlds": couette.exact.worlds,
    "recipes": couette.recipes,
    "figures": couette.figures,
    "edits": couette.editing,
    "views": couette.editing.views,
    "partitions": couette.editing.partitions,
    "operators": couette.editing.operators,
}
"""Each family of `couette list`, and whose docstring introduces it."""


class Docstring(NamedTuple):
    """What a docstring says in prose, and what it says of each argument."""

    body: str
    arguments: Mapping[str, str]


def page() -> str:
    """The whole of docs/methods.md."""
    contents = [f"- [{title(each)}](#{slug(title(each))})" for each in CHAPTERS]
    blocks = [
        "# Every method",
        "<!-- Written by scripts/methods.py from the docstrings: edit those, then `make docs`. -->",
        wrap(
            "Everything that is chosen by name, with its equation, its paper, when to use it and "
            "its settings. A part and its settings are written `name:setting=value,setting=value`, "
            "on the command line (`couette sample RUN --sampler ddim:eta=0.5 --grid karras`) as in "
            "a run's `config.yaml`; `couette list` shows the same in short."
        ),
        "\n".join([*contents, "- [Names elsewhere](#names-elsewhere)"]),
    ]
    for family, about in CHAPTERS.items():
        blocks += chapter(family, about, FAMILIES[family])
    return "\n\n".join([*blocks, *elsewhere()]) + "\n"


def chapter(family: str, about: object, registry: Registry[Any]) -> Iterator[str]:
    yield f"## {title(family)}"
    yield prose((inspect.getdoc(about) or "").partition("\n\n")[0])
    if registry is SAMPLERS:
        yield traits()
    for names in parts(registry):
        yield from section(registry, names)


def section(registry: Registry[Any], names: Sequence[str]) -> Iterator[str]:
    """One part: heading, docstring, settings, and what others call it."""
    name = names[0]
    yield f"### {heading(registry, names)}"
    said = read(inspect.getdoc(registry[name]) or "")
    yield prose(said.body)
    if registry.settings(name).model_fields:
        yield settings(registry, name, said.arguments)
    others: dict[str, list[str]] = {}
    for theirs, here in sorted(registry.theirs().items(), key=lambda each: each[0].casefold()):
        others.setdefault(here, []).append(f"`{theirs}`")
    for here in sorted(others):
        if here.partition(":")[0] == name:
            called = "Elsewhere" if here == name else f"`{here}` elsewhere"
            yield wrap(f"{called}: {', '.join(others[here])}.")


def settings(registry: Registry[Any], name: str, said: Mapping[str, str]) -> str:
    """A table of a part's settings; with a column of words where its docstring has any."""
    schema = registry.settings(name).model_json_schema()
    fields = registry.settings(name).model_fields
    rows = [
        (
            f"`{each}`",
            allowed(schema["properties"][each], schema.get("$defs", {})),
            "needed" if field.is_required() else default(field.default),
            said.get(each, ""),
        )
        for each, field in fields.items()
    ]
    if any(words for *_, words in rows):
        return table(("setting", "values", "default", "what it is"), rows)
    return table(("setting", "values", "default"), [row[:3] for row in rows])


def allowed(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """The values that a setting takes, in words."""
    if "$ref" in schema:
        return allowed(defined[schema["$ref"].rpartition("/")[2]], defined)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(each, defined) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        inner = schema.get("items", {})
        return f"several: {allowed(inner, defined)}" if inner else "several"
    words = {
        "number": "number",
        "integer": "whole number",
        "boolean": "`true`, `false`",
        "string": "text",
        "null": "none",
        "object": "a part",
    }
    return f"{words[schema['type']]}{bounds(schema)}"


def bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    said = [f"from {number(low)}" if low is not None else ""]
    said += [f"above {number(schema['exclusiveMinimum'])}" if "exclusiveMinimum" in schema else ""]
    said += [f"to {number(high)}" if high is not None else ""]
    said += [f"below {number(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else ""]
    return "".join(f" {each}" for each in said if each)


def number(value: float) -> str:
    if isinstance(value, int):
        return "2^63" if value == 2**63 else f"{value:,}"
    return f"{value:g}"


def default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{written(value)}`"


def written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return f"({','.join(map(written, value))})"
    return str(value).lower() if isinstance(value, bool) else str(value)


def traits() -> str:
    """What each sampler declares of itself, and how to read it."""
    columns = ("sampler", "order", "weak order", "evaluations", "noise", "what else")
    rows = [
        (
            f"[`{name}`](#{slug(heading(SAMPLERS, [name]))})",
            str(SAMPLERS.trait(name, "order", "")),
            str(SAMPLERS.trait(name, "weak", "")),
            str(SAMPLERS.trait(name, "evaluations", 1) or "varies"),
            "drawn" if SAMPLERS.trait(name, "noise") else "",
            ", ".join(said for trait, said in ELSE.items() if SAMPLERS.trait(name, trait)),
        )
        for name in SAMPLERS
    ]
    legend = (
        "*Order*: of the error on the probability-flow ODE, start-up steps included, measured by "
        "the tests. *Weak order*: of the error of the distribution on Gaussian data, where noise "
        "is drawn. *Evaluations*: of the denoiser, for one step more. *Noise*: drawn on the way, "
        "as the settings stand."
    )
    return f"{wrap(legend)}\n\n{table(columns, rows)}"


ELSE = {
    "adaptive": "chooses its own steps",
    "inverse": "climbs from pictures to noise",
    "mix": "takes uniform noise too",
    "states": "for states, not pictures",
}


def title(family: str) -> str:
    return TITLES.get(family, family.capitalize())


TITLES = {
    "data": "Data sets",
    "grids": "Time grids",
    "times": "Times of training",
    "told": "What the network is told",
}


def heading(registry: Registry[Any], names: Sequence[str]) -> str:
    first, *rest = (f"`{name}`" for name in names)
    return f"{registry.kind.capitalize()} {first}" + "".join(f", also {each}" for each in rest)


def parts(registry: Registry[Any]) -> list[list[str]]:
    """Names, together where they are one part's, in order of the first."""
    found: dict[int, list[str]] = {}
    for name in registry:
        found.setdefault(id(registry[name]), []).append(name)
    return list(found.values())


def read(docstring: str) -> Docstring:
    """A docstring taken apart: prose without Raises, and Args by name."""
    body, _, tail = docstring.partition("\nArgs:\n")
    arguments: dict[str, str] = {}
    listed = re.match(r"(?:[ ]{4}.*\n?)*", tail)
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(listed.group() if listed else "").strip()):
        names, _, said = entry.partition(": ")
        arguments |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return Docstring(body.partition("\nRaises:\n")[0].strip(), arguments)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
