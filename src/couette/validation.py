"""Untrusted data as settings, and what is wrong with them in sentences. Knows no setting itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from couette.errors import ConfigError, nearest

M = TypeVar("M", bound=BaseModel)

_PLAIN = ("the settings", "the sampling settings", "the flags")
"""Where a setting needs no more than its name to be found."""
_BOUNDS = {
    "greater_than": "{} greater than {gt:g}",
    "greater_than_equal": "{} of {ge:g} or more",
    "less_than": "{} less than {lt:g}",
    "less_than_equal": "{} of {le:g} at most",
}
_KINDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
}


def parse(model: type[M], fields: Any, where: str) -> M:
    """Build a settings model from untrusted data.

    Raises:
        ConfigError: with every fault in one sentence each, near misses named.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(explain(error, model, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A validation error in words, with the nearest field for an unknown one."""
    lines: list[str] = []
    taken: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            fields = _fields_at(model, fault["loc"][:-1])
            near = nearest(str(fault["loc"][-1]), fields)
            hint = f"did you mean '{near}'?" if near else f"it has {', '.join(fields) or 'none'}."
            lines.append(f"There is no setting '{path}' in {where}; {hint}")
        elif fault["type"] == "missing":
            lines.append(f"The setting '{path}' is missing in {where}.")
        else:
            place, kind = _place(model, fault["loc"])
            wanted = _wanted(fault, kind)
            if place and wanted:
                taken.setdefault(place, []).append(wanted)
                given[place] = fault["input"]
                continue
            message = fault["msg"].removeprefix("Value error, ")
            # A whole group is not shown: the message names what is wrong in it.
            whole = not path or isinstance(fault["input"], Mapping | BaseModel)
            value = "" if whole else f" {path} = {fault['input']!r}:"
            lines.append(f"In {where},{value} {message[:1].lower()}{message[1:]}.")
    start = "" if where in _PLAIN else f"In {where}, "
    for place, words in taken.items():
        either = " or ".join(dict.fromkeys(words))
        lines.append(f"{start}{place} takes {either}, not {given[place]!r}.")
    return " ".join(lines)


def _wanted(fault: Any, kind: Any) -> str | None:
    """What a setting takes, in words; None for what pydantic says best itself."""
    if fault["type"] in _BOUNDS:
        kinds = str(kind)
        number = "a whole number" if "int" in kinds and "float" not in kinds else "a number"
        return _BOUNDS[fault["type"]].format(number, **fault["ctx"])
    if fault["type"] == "literal_error":
        return str(fault["ctx"]["expected"])
    return _KINDS.get(fault["type"])


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """The setting that a fault is about, and its type; a union's branches are no part of it."""
    path: list[str] = []
    kind: Any = model
    for part in loc:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        field = kind.model_fields.get(str(part))
        if field is None:
            break
        path.append(str(part))
        kind = field.annotation
    return ".".join(path), kind


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names of the group at `path`."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def from_text(value: object) -> object:
    """A whole number that was written as text, for settings that are one of a few numbers."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value
