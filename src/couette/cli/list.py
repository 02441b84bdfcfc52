"""couette list: what there is to choose from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import fill
from typing import Annotated, Any

import tyro

import couette.figures
import couette.networks  # noqa: F401  (fills the registry)
from couette.cli.asking import parse_call
from couette.data import open_data  # noqa: F401  (fills the registry)
from couette.editing import EDITS, OPERATORS, PARTITIONS, VIEWS
from couette.errors import UnknownName
from couette.exact import WORLDS
from couette.figures import FIGURES
from couette.guidance import GUIDANCE, THRESHOLDS
from couette.interop import PIPELINES
from couette.places import data_roots
from couette.recipes import RECIPES
from couette.registry import (
    CODECS,
    DATASETS,
    GRIDS,
    LOSSES,
    NETWORKS,
    PAIRINGS,
    PARAMETERIZATIONS,
    SCHEDULES,
    TIMES,
    TOLD,
    WEIGHTINGS,
    Registry,
)
from couette.samplers import SAMPLERS
from couette.training import OBJECTIVES

FAMILIES: Mapping[str, Registry[Any]] = {
    "recipes": RECIPES,
    "data": DATASETS,
    "networks": NETWORKS,
    "schedules": SCHEDULES,
    "samplers": SAMPLERS,
    "guiders": GUIDANCE,
    "thresholds": THRESHOLDS,
    "grids": GRIDS,
    "objectives": OBJECTIVES,
    "parameterizations": PARAMETERIZATIONS,
    "weightings": WEIGHTINGS,
    "losses": LOSSES,
    "times": TIMES,
    "pairings": PAIRINGS,
    "told": TOLD,
    "codecs": CODECS,
    "worlds": WORLDS,
    "figures": FIGURES,
    "edits": EDITS,
    "views": VIEWS,
    "partitions": PARTITIONS,
    "operators": OPERATORS,
}


_OTHER_DATA = """  (looked for in {}; couette train NAME --data.download fetches one)
  or a folder of pictures
  or hf:owner/name, pictures of the Hugging Face hub (needs pip install couette[data])"""
_OTHER_MODELS = """  or a run, a saved model, or one in diffusers' layout: a folder, or owner/name
  of the Hugging Face hub (needs pip install couette[diffusers]):
"""
_OTHER_MODELS += fill(", ".join(PIPELINES), 100, initial_indent="  ", subsequent_indent="  ")


def run(arguments: list[str]) -> int:
    family, rest = None, arguments
    if arguments and not arguments[0].startswith("-"):
        family, rest = arguments[0], arguments[1:]
    if family is not None and family not in FAMILIES:
        raise UnknownName("family", family, FAMILIES)

    def show(*, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
        """List what there is to choose from: couette list [FAMILY].

        Args:
            as_json: one JSON object on stdout.
        """
        return _show([family] if family else list(FAMILIES), as_json)

    return parse_call(show, "list", rest)


def _show(families: list[str], as_json: bool) -> int:
    if as_json:
        print(json.dumps({each: _facts(FAMILIES[each]) for each in families}, indent=2))
        return 0
    for each in families:
        registry = FAMILIES[each]
        width = max(map(len, registry), default=0)
        print(f"{each}:")
        for name in registry:
            settings = registry.settings(name).model_fields
            tail = f"  [{', '.join(settings)}]" if settings else ""
            for place in _place(registry, name).values():
                tail += f"  [in {place}]" if place else "  [not on this machine]"
            print(f"  {name:<{width}}  {registry.summary(name)}{tail}")
        if each == "data":
            print(_OTHER_DATA.format(" and ".join(map(str, data_roots()))))
        if each == "worlds":
            print(_OTHER_MODELS)
        print()
    return 0


def _place(registry: Registry[Any], name: str) -> dict[str, str | None]:
    """Of data that are fetched, where they lie on this machine; nothing of what is at hand."""
    find = registry.trait(name, "found")
    if find is None:
        return {}
    try:
        found = find()
    except OSError:  # a folder that may not be looked into
        found = None
    return {"place": None if found is None else str(found)}


def _facts(registry: Registry[Any]) -> dict[str, Any]:
    return {
        name: {
            "summary": registry.summary(name),
            **_place(registry, name),
            "settings": {
                setting: None if field.is_required() else field.default
                for setting, field in registry.settings(name).model_fields.items()
            },
        }
        for name in registry
    }
