"""From the command line to settings: every config field is a flag, listed nowhere twice.

tyro reads the flags off functions' signatures and off the settings models. Where a setting is a
part with settings of its own (`--network unet --network.width 64`), the part's name is looked up
first and the part's own signature says which flags follow.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from couette.cli.asking import parse
from couette.config import RunConfig, Spec, spec_fields
from couette.errors import InputError
from couette.registry import CHAINS, PARTS

ALIASES = {
    "schedule": "diffusion.schedule",
    "parameterization": "diffusion.parameterization",
    "weighting": "diffusion.weighting",
    "sampler": "sampling.sampler",
    "guidance": "sampling.guidance",
    "guider": "sampling.guider",
    "threshold": "sampling.threshold",
    "resolution": "data.resolution",
    "batch": "training.batch",
    "lr": "training.lr",
    "device": "runtime.device",
    "runtime": "runtime.mode",
    "download": "data.download",
    # The names that users of diffusers' training scripts know.
    "output-dir": "out",
    "train-batch-size": "training.batch",
    "learning-rate": "training.lr",
    "gradient-accumulation-steps": "training.accumulate",
    "checkpointing-steps": "training.save-every",
    "max-train-steps": "steps",
    "num-train-epochs": "epochs",
    "train-data-dir": "data.source",
    "random-flip": "data.flip",
    "lr-warmup-steps": "training.warmup",
}
"""Shorter or well-known words for flags, by what they stand for."""

DRAWING = {
    "num-inference-steps": "steps",
    "guidance-scale": "guidance",
    "num-images": "count",
    "num-images-per-prompt": "count",
    "output-dir": "out",
}
"""The names that users of diffusers know for the flags of the verbs that draw."""

_AUTO = "auto"
_ARG = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""One parameter in a docstring, and what it says of it."""
_STRICT = ConfigDict(frozen=True, extra="forbid")
_DTYPES = {"bf16": "bfloat16", "no": "float32", "fp32": "float32"}


def told(aliases: Mapping[str, str]) -> str:
    """Aliases in words, for a verb's help."""
    theirs = [f"--{name.replace('-', '_')} (--{flag})" for name, flag in aliases.items()]
    return f"Other words for flags: {', '.join(theirs)}."


def normal_flags(arguments: list[str], *, aliases: Mapping[str, str] = ALIASES) -> list[str]:
    """Flags as tyro wants them: `_` and `-` made one, `--flag=value` parted, aliases replaced."""
    result: list[str] = []
    for each in arguments:
        if not each.startswith("--"):
            result.append(each)
            continue
        name, equals, value = each[2:].partition("=")
        name = name.replace("_", "-")
        result.append("--" + aliases.get(name, name))
        if equals:
            result.append(value)
    return _translated(result)


def _translated(arguments: list[str]) -> list[str]:
    """The two flags of diffusers' scripts whose values differ from ours."""
    result = []
    pending = iter(arguments)
    for each in pending:
        if each == "--mixed-precision":
            value = next(pending, "")
            if value not in _DTYPES:
                raise InputError(f"--mixed_precision takes bf16 or no, not '{value}'.")
            result += ["--runtime.dtype", _DTYPES[value]]
        elif each == "--resume-from-checkpoint":
            value = next(pending, "")
            if value != "latest":
                raise InputError(
                    f"--resume_from_checkpoint takes latest, not '{value}'; a run goes on from "
                    "its newest whole checkpoint."
                )
            result.append("--resume")
        elif each in ("--center-crop", "--no-center-crop"):
            raise InputError(
                "There is no --center_crop: pictures are always scaled on the short side and "
                "cropped at the centre; leave it out. Random shifts are --data.crop."
            )
        else:
            result.append(each)
    return result


def flagged(message: str, verb: str) -> str:
    """A refusal of settings as one of flags: "training.steps takes …" is "--steps takes …"."""
    short = {f"training.{name}": name for name in ("steps", "epochs", "minutes", "seed")}
    for name, path in ALIASES.items():
        short.setdefault(path, name)

    def flag(found: re.Match[str]) -> str:
        path = found[1].replace("_", "-")
        return f"--{short.get(path, path) if verb == 'train' else path} takes "

    message = re.sub(r"(?:^|(?<=\. ))([a-z_]+(?:\.[a-z_]+)*) takes ", flag, message)
    return message if verb == "train" else message.replace("--runtime.device", "--device")


def take_flag(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name VALUE` (the last one given), and the arguments without it.

    Raises:
        InputError: the flag has no value.
    """
    flag, value, rest = f"--{name}", None, []
    pending = iter(arguments)
    for each in pending:
        if each != flag:
            rest.append(each)
            continue
        value = next(pending, None)
        if value is None or value.startswith("--"):
            raise InputError(f"{flag} needs a value.")
    return value, rest


def spec_of(text: str) -> Spec:
    """A part as it is written on the command line: `ddim:eta=0.5`.

    Raises:
        ConfigError: a setting without "=".
    """
    return Spec.model_validate(spec_fields(text))


def take_flags(arguments: list[str], name: str) -> tuple[tuple[str, ...], list[str]]:
    """All values of `--name VALUE VALUE …`, and the arguments without them."""
    values: list[str] = []
    rest: list[str] = []
    here = False
    for each in arguments:
        if each.startswith("--"):
            here = each == f"--{name}"
            rest += [] if here else [each]
        else:
            (values if here else rest).append(each)
    return tuple(values), rest


def documented(function: Callable[..., Any], leave: Collection[str] = ()) -> dict[str, Any]:
    """The keyword-only parameters of a verb as pydantic fields, for another verb that shares them.

    Args:
        function: whose docstring says under "Args:" what each is.
        leave: those that are not shared.
    """
    told = dict(re.findall(_ARG, (inspect.getdoc(function) or "").partition("Args:")[2]))
    hints = get_type_hints(function, include_extras=True)
    return {
        name: (
            Annotated[hints[name], Field(description=" ".join(told[name].split()))],
            each.default,
        )
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY and name not in leave
    }


def parse_config(
    base: RunConfig, verb: str, arguments: list[str], extra: Mapping[str, tuple[Any, Any]]
) -> tuple[RunConfig, dict[str, Any]]:
    """A RunConfig from flags, over the base's values.

    Args:
        base: where no flag says otherwise.
        verb: for the help text.
        arguments: flags, already through `normal_flags`.
        extra: further flags as pydantic fields: name to (type, default).

    Raises:
        UnknownName, ConfigError: a part or setting that does not exist.
        InputError: a flag that does not exist, or a value that it can't take.
        SystemExit: with 0, where help was asked for.
    """
    parts: dict[str, Spec] = {}
    for path in PARTS:
        text, arguments = take_flag(arguments, path)
        parts[path] = _at(base, path) if text is None else spec_of(text)
    chains = {}
    for path in CHAINS:
        texts, arguments = take_flags(arguments, path)
        chains[path] = tuple(map(spec_of, texts))
    groups = _opened(base, "", parts)
    fields: dict[str, Any] = {name: (type(value), value) for name, value in groups.items()}
    found = parse(
        create_model("Settings", __config__=_STRICT, **{**extra, **fields}),
        f"couette {verb}",
        arguments,
        known=[*ALIASES, *_flags(fields)],
    )
    chosen = {name: _closed(getattr(found, name), name, parts) for name in groups}
    unsized = {name: spec for name, spec in parts.items() if spec.name == _AUTO}
    for path, specs in chains.items():
        group, _, name = path.rpartition(".")
        chosen[group] |= {name: tuple(map(CHAINS[path].explicit, specs))} if specs else {}
    return base.replace(**chosen, **unsized), {name: getattr(found, name) for name in extra}


def _flags(fields: Mapping[str, tuple[Any, Any]], prefix: str = "") -> list[str]:
    """Every flag of these settings groups."""
    names = []
    for name, (_, value) in fields.items():
        path = f"{prefix}{name.replace('_', '-')}"
        inner = (
            {key: (None, getattr(value, key)) for key in type(value).model_fields}
            if isinstance(value, BaseModel)
            else {}
        )
        names += _flags(inner, f"{path}.") if inner else [path]
    return names


def _opened(group: BaseModel, prefix: str, parts: Mapping[str, Spec]) -> dict[str, BaseModel]:
    """The settings groups of a model, with each part's own settings in place of its Spec.

    A part that is sized from the data has none yet and is left out.
    """
    return {
        name: _with_parts(getattr(group, name), prefix + name, parts)
        for name in type(group).model_fields
        if isinstance(getattr(group, name), BaseModel)
        and (prefix + name not in parts or parts[prefix + name].name != _AUTO)
    }


def _with_parts(value: BaseModel, path: str, parts: Mapping[str, Spec]) -> BaseModel:
    if path in parts:
        registry, spec = PARTS[path], parts[path]
        return _loose(registry.settings(spec.name), registry.check(spec))
    inner = _opened(value, path + ".", parts)
    fields = [name for name in type(value).model_fields if f"{path}.{name}" not in CHAINS]
    return _loose(type(value), {name: inner.get(name, getattr(value, name)) for name in fields})


def _loose(model: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    """The same fields without their bounds: those are checked once, later, in our own words."""
    fields: dict[str, Any] = {}
    for name in values:
        info = model.model_fields[name]
        opened = isinstance(values[name], BaseModel)
        kind = type(values[name]) if opened else _bare(info.annotation)
        fields[name] = (kind, Field(values[name], description=info.description))
    made: BaseModel = create_model(model.__name__, __config__=_STRICT, **fields)()
    return made


def _bare(kind: Any) -> Any:
    """A type without the bounds that stand inside it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bare(inner[0])
    if origin is Union or origin is UnionType:
        return Union[tuple(map(_bare, inner))]  # noqa: UP007  (made of a tuple)
    if origin is tuple:
        return tuple[tuple(each if each is ... else _bare(each) for each in inner)]  # type: ignore[misc]
    return kind


def _closed(value: Any, path: str, parts: Mapping[str, Spec]) -> Any:
    """The value that was found, parts as Specs again."""
    if path in parts:
        settings = {k: v for k, v in value.model_dump().items() if v is not None}
        return Spec(name=parts[path].name, **settings)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: _closed(getattr(value, name), f"{path}.{name}", parts) for name in fields}
    return value


def _at(config: BaseModel, path: str) -> Spec:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, Spec)
    return value
