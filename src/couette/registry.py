"""Closed registries: the only way from a name in a config to code.

A part registers itself under a name where it is defined. Its settings are the keyword-only
parameters of its own signature, so flags, schemas and checks come from there and nothing is listed
twice. Nothing is ever imported by a string that a file holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Generic, TypeVar, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from couette.config import Spec
from couette.errors import ConfigError, UnknownName, folded
from couette.validation import explain

P = TypeVar("P", bound=Callable[..., Any])
New = TypeVar("New", bound=Callable[..., Any])


class Registry(Generic[P]):
    """Parts of one kind, by name.

    Args:
        kind: what a part is called in messages, in the singular.
        endings: families whose names others write at the end of this one's, by the flag that
            chooses them here: "DPM++ 2M Karras" is a sampler and a grid.
    """

    def __init__(self, kind: str, endings: Mapping[str, Registry[Any]] | None = None) -> None:
        self.kind = kind
        self._endings = endings or {}
        self._parts: dict[str, P] = {}
        self._traits: dict[str, Mapping[str, Any]] = {}

    def register(self, name: str, **traits: Any) -> Callable[[New], New]:
        """Decorator: enter a function or class under `name`.

        Traits are facts that the part declares of itself, for tests and tables to read; what they
        mean stands where the family is described. Two hold in every family: `known_as`, the names
        that other programs have for the part as its settings stand, and `variants`, those they
        have for it with other settings, as in {"eta=1": ("Euler a",)}.
        """

        def enter(part: New) -> New:
            if name in self._parts:
                raise ConfigError(f"The {self.kind} '{name}' is registered twice.")
            self._parts[name] = cast(P, part)
            self._traits[name] = traits
            return part

        return enter

    def __getitem__(self, name: str) -> P:
        if name not in self._parts:
            raise UnknownName(self.kind, name, self._parts, self.here(name))
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def trait(self, name: str, trait: str, default: Any = None) -> Any:
        """What a part declares of itself; `default` where it declares nothing of the kind.

        Raises:
            UnknownName: no part of that name.
        """
        return self._traits[name].get(trait, default) if self[name] else default

    def theirs(self) -> dict[str, str]:
        """What other programs call these parts: each name with what to write for it here.

        Of a part that has two names here the first one is written.
        """
        names: dict[str, str] = {}
        for part in self:
            names = dict.fromkeys(self.trait(part, "known_as", ()), part) | names
            for settings, others in self.trait(part, "variants", {}).items():
                names = dict.fromkeys(others, f"{part}:{settings}") | names
        return names

    def here(self, theirs: str) -> tuple[str, ...]:
        """What to write for what others call `theirs`, and a flag to go with it where one must.

        "DPM++ 2M Karras" gives ("dpmpp-2m", "--grid karras"). Capitals, spaces, - and _ make no
        difference. Empty where nothing here bears the name.
        """
        known = {folded(each): part for each, part in self.theirs().items()}
        known |= {folded(part): part for part in self}
        given = folded(theirs)
        if given in known:
            return (known[given],)
        for flag, family in self._endings.items():
            for ending, part in family.theirs().items():
                head = given.removesuffix(f"-{folded(ending)}")
                if head != given and head in known:
                    return known[head], f"--{flag} {part}"
        return ()

    def settings(self, name: str) -> type[BaseModel]:
        """The settings of a part as a strict, frozen model, from its keyword-only parameters."""
        return _settings(self[name], f"{self.kind} {name}")

    def check(self, spec: Spec) -> dict[str, Any]:
        """The spec's settings, converted, with defaults filled in.

        Raises:
            UnknownName: no part of that name.
            ConfigError: a setting that the part does not have, or of the wrong kind.
        """
        model = self.settings(spec.name)
        try:
            return dict(model(**spec.settings))
        except ValidationError as error:
            where = f"{self.kind} '{spec.name}'"
            raise ConfigError(explain(error, model, where)) from None

    def explicit(self, spec: Spec) -> Spec:
        """The spec with every setting that is not None written out, checked as by `check`."""
        settings = {name: value for name, value in self.check(spec).items() if value is not None}
        return Spec(name=spec.name, **settings)

    def brief(self, spec: Spec) -> Spec:
        """The spec with only those of its settings that are not their defaults, for reading."""
        fields = self.settings(spec.name).model_fields
        told = {key: value for key, value in spec.settings.items() if fields[key].default != value}
        return Spec(name=spec.name, **told)

    def build(self, spec: Spec, *args: Any) -> Any:
        """Call the part with `args` and the spec's settings."""
        return self[spec.name](*args, **self.check(spec))

    def bind(self, spec: Spec) -> Callable[..., Any]:
        """The part as a function with the spec's settings filled in."""
        return partial(self[spec.name], **self.check(spec))

    def summary(self, name: str) -> str:
        """The first line of the part's docstring."""
        return (inspect.getdoc(self[name]) or "").partition("\n")[0]


@cache
def _settings(part: Callable[..., Any], title: str) -> type[BaseModel]:
    hints = get_type_hints(part.__init__ if inspect.isclass(part) else part, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(part).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            required = parameter.default is parameter.empty
            default = Field(...) if required else Field(parameter.default)
            fields[parameter.name] = (hints[parameter.name], default)
    config = ConfigDict(frozen=True, extra="forbid", title=title, allow_inf_nan=False)
    return create_model(title.replace(" ", "_"), __config__=config, **fields)


# The families. A part enters one of them in the file that defines it.
NETWORKS: Registry[Any] = Registry("network")
SCHEDULES: Registry[Any] = Registry("schedule")
GRIDS: Registry[Any] = Registry("time grid")
TIMES: Registry[Any] = Registry("time sampling")
PARAMETERIZATIONS: Registry[Any] = Registry("parameterization")
TOLD: Registry[Any] = Registry("told")
WEIGHTINGS: Registry[Any] = Registry("weighting")
LOSSES: Registry[Any] = Registry("loss")
PAIRINGS: Registry[Any] = Registry("pairing")
CODECS: Registry[Any] = Registry("codec")
SAMPLERS: Registry[Any] = Registry("sampler", {"grid": GRIDS})
GUIDANCE: Registry[Any] = Registry("guider")
THRESHOLDS: Registry[Any] = Registry("threshold")
OBJECTIVES: Registry[Any] = Registry("objective")
DATASETS: Registry[Any] = Registry("data set")
RECIPES: Registry[Any] = Registry("recipe")

PARTS: Mapping[str, Registry[Any]] = {
    "objective": OBJECTIVES,
    "codec": CODECS,
    "network": NETWORKS,
    "diffusion.schedule": SCHEDULES,
    "diffusion.parameterization": PARAMETERIZATIONS,
    "diffusion.told": TOLD,
    "diffusion.weighting": WEIGHTINGS,
    "diffusion.times": TIMES,
    "diffusion.loss": LOSSES,
    "diffusion.pairing": PAIRINGS,
    "sampling.sampler": SAMPLERS,
    "sampling.grid": GRIDS,
    "sampling.threshold": THRESHOLDS,
}
"""The settings that name a part, and the family each is of."""

CHAINS: Mapping[str, Registry[Any]] = {"sampling.guider": GUIDANCE}
"""The settings that name several parts, in order, and the family they are of."""
