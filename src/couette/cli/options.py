"""From the command line to settings: every config field is a flag, listed nowhere twice.

tyro reads the flags off functions' signatures and off the settings models. Where a setting is a
part with settings of its own (`--network unet --network.width 64`), the part's name is looked up
first and the part's own signature says which flags follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from couette.config import RunConfig, Spec, spec_fields
from couette.errors import InputError
from couette.registry import CHAINS, PARTS

T = TypeVar("T")

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
}
"""Shorter or well-known words for flags, by what they stand for."""

_AUTO = "auto"
_STRICT = ConfigDict(frozen=True, extra="forbid")
_DTYPES = {"bf16": "bfloat16", "no": "float32", "fp32": "float32"}


def parse_call(function: Callable[..., T], verb: str, arguments: list[str]) -> T:
    """Call a verb's function with flags read off its signature; tyro's errors exit with 2."""
    return tyro.cli(function, prog=f"couette {verb}", args=arguments)


def normal_flags(arguments: list[str], *, aliases: bool = True) -> list[str]:
    """Flags as tyro wants them: `_` and `-` made one, `--flag=value` parted, aliases replaced."""
    result: list[str] = []
    for each in arguments:
        if not each.startswith("--"):
            result.append(each)
            continue
        name, equals, value = each[2:].partition("=")
        name = name.replace("_", "-")
        result.append("--" + (ALIASES.get(name, name) if aliases else name))
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
        else:
            result.append(each)
    return result


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
        SystemExit: tyro's, after it has printed help or what was wrong with a flag.
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
    found = tyro.cli(
        create_model("Settings", __config__=_STRICT, **{**extra, **fields}),
        prog=f"couette {verb}",
        args=arguments,
    )
    chosen = {name: _closed(getattr(found, name), name, parts) for name in groups}
    unsized = {name: spec for name, spec in parts.items() if spec.name == _AUTO}
    for path, specs in chains.items():
        group, _, name = path.rpartition(".")
        chosen[group] |= {name: tuple(map(CHAINS[path].explicit, specs))} if specs else {}
    return base.replace(**chosen, **unsized), {name: getattr(found, name) for name in extra}


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
