"""couette show: pictures that explain a run, a data set, a recipe, or diffusion itself."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from couette.cli.asking import parse as read
from couette.cli.notes import heard
from couette.cli.options import normal_flags, take_flag, take_flags
from couette.config import RuntimeConfig
from couette.errors import InputError
from couette.figures import FIGURES, NEEDS, Shown, Target, draw, resolve, topics_for
from couette.recipes import fit
from couette.storage import check_writable
from couette.validation import parse

HELP = """couette show [RUN|DATA|RECIPE] [TOPIC] [flags of the topic]

Without a topic it draws what is usual for what was named. Topics:

{topics}

`couette show TARGET TOPIC --help` tells a topic's own flags.
"""

_EXTRA: dict[str, Any] = {
    "out": (Annotated[Path | None, Field(description="a folder; RUN/figures or ./figures")], None),
    "data": (Annotated[str | None, Field(description="other data than the run's")], None),
    "weights": (
        Annotated[Literal["average", "raw"], Field(description="which weights to draw with")],
        "average",
    ),
    "device": (Annotated[str, Field(description="auto, cpu, cuda or mps")], "auto"),
    "metadata": (Annotated[bool, Field(description="write the settings into PNGs")], True),
    "as_json": (
        Annotated[bool, tyro.conf.arg(name="json", help="one JSON object on stdout")],
        False,
    ),
}
_NO_ABBREVIATION = ConfigDict(frozen=True, extra="forbid")


def run(arguments: list[str]) -> int:
    words, flags = _words(normal_flags(arguments, aliases={}))
    given, topic = _meant(words)
    if topic is not None:
        FIGURES[topic]  # an unknown topic is said before the target is looked for
    elif "-h" in flags or "--help" in flags:
        print(HELP.format(topics=_summaries()))
        return 0
    found, settings = _parsed(topic, flags)
    runtime = parse(RuntimeConfig, {"device": found.device}, "the flags")
    average = found.weights == "average"
    with heard() as notes:
        target = resolve(given, data=found.data, average=average, runtime=runtime, fit=fit)
        topics = [topic] if topic else topics_for(target, usual=True)
        folder = found.out or target.home / "figures"
        check_writable(folder)
        shown: list[Shown] = []
        for each in topics:
            new = draw(target, each, settings, folder, metadata=found.metadata)
            if not found.as_json:
                _say(new)
            shown += new
    if found.as_json:
        figures = [{"path": str(each.path), "notes": list(each.notes)} for each in shown]
        print(json.dumps({"figures": figures, "notes": notes}, ensure_ascii=False))
    elif topic is None and target.kind != "nothing":
        _say_more(target, topics)
    return 0


def _words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first flag, and the rest."""
    first = next((i for i, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    return arguments[:first], arguments[first:]


def _meant(words: list[str]) -> tuple[str | None, str | None]:
    """Target and topic; a single word that is a topic needing no target is the topic.

    Raises:
        InputError: more than two words.
    """
    if len(words) > 2:
        raise InputError(
            f"'couette show' takes a target and a topic, not {len(words)} words: {' '.join(words)}."
        )
    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return None, None
    only = words[0]
    if only in FIGURES and not Path(only).exists():
        return None, only
    return only, None


def _parsed(topic: str | None, flags: list[str]) -> tuple[Any, dict[str, Any]]:
    """The common flags, and the topic's own that were given."""
    if topic is None:
        common = create_model("Flags", __config__=_NO_ABBREVIATION, **_EXTRA)
        return read(common, "couette show", flags), {}
    specs, flags = _specs(topic, flags)
    own = FIGURES.settings(topic)
    fields: dict[str, Any] = {
        name: (Annotated[info.annotation, info], info.default)
        for name, info in own.model_fields.items()
        if name not in specs
    }
    clash = fields.keys() & _EXTRA.keys()
    assert not clash, f"the figure '{topic}' has settings of common names: {clash}"
    shape: type[BaseModel] = create_model("Flags", __config__=_NO_ABBREVIATION, **_EXTRA, **fields)
    found = read(shape, f"couette show … {topic}", flags, description=FIGURES[topic].__doc__)
    settings = {name: getattr(found, name) for name in fields}
    return found, {**settings, **{name: value for name, value in specs.items() if value}}


def _specs(topic: str, flags: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that name a part, as `--sampler ddim:eta=0.5`, taken out of the flags."""
    found: dict[str, Any] = {}
    for name, info in FIGURES.settings(topic).model_fields.items():
        if "Spec" not in str(info.annotation):
            continue
        flag = name.replace("_", "-")
        several = "tuple" in str(info.annotation)
        found[name], flags = (take_flags if several else take_flag)(flags, flag)
    return found, flags


def _summaries() -> str:
    width = max(map(len, FIGURES))
    return "\n".join(f"  {name:<{width}}  {FIGURES.summary(name)}" for name in FIGURES)


def _say(shown: list[Shown]) -> None:
    for each in shown:
        print(each.path)
        for note in each.notes:
            print(f"    {note}")


def _say_more(target: Target, drawn: list[str]) -> None:
    more = [topic for topic in topics_for(target) if topic not in drawn and NEEDS[topic]]
    if more:
        print(f"More: couette show {shlex.quote(target.given)} {'|'.join(more)}")
