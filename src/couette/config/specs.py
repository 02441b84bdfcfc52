"""Parts chosen by name: a network, a schedule, a sampler, each with settings of its own."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from couette.errors import ConfigError

_OUTER_COMMA = re.compile(r",(?![^(\[]*[)\]])")
"""A comma that is not inside brackets."""


class Spec(BaseModel):
    """A part by name, with its settings: `unet`, `ddim:eta=0.5` or `{name: unet, width: 64}`."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        fields = spec_fields(value) if isinstance(value, str) else value
        return {k: tupled(v) for k, v in fields.items()} if isinstance(fields, dict) else fields

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        rest = ",".join(f"{key}={_written(value)}" for key, value in self.settings.items())
        return f"{self.name}:{rest}" if rest else self.name

    def with_settings(self, **settings: Any) -> Spec:
        """The same part with some settings replaced."""
        return Spec(name=self.name, **{**self.settings, **settings})


def spec_fields(text: str) -> dict[str, Any]:
    """The fields of a Spec written as `name` or `name:key=value,key=(value,value)`.

    Raises:
        ConfigError: a setting without "=".
    """
    name, _, rest = text.partition(":")
    fields: dict[str, Any] = {"name": name.strip()}
    for part in filter(None, (piece.strip() for piece in _OUTER_COMMA.split(rest))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(
                f"'{text}' can't be read at '{part}'; write settings as {name}:key=value,key=value."
            )
        fields[key.strip().replace("-", "_")] = _listed(value.strip())
    return fields


def _written(value: Any) -> str:
    """A setting as `spec_fields` reads it."""
    text = ",".join(map(_written, value)) if isinstance(value, tuple) else str(value)
    return f"({text})" if isinstance(value, tuple) or "," in text else text


def _listed(value: str) -> str | tuple[str, ...]:
    """A value in brackets as a tuple of its parts."""
    if value[:1] not in ("(", "[") or value[-1:] not in (")", "]"):
        return value
    return tuple(part for part in (piece.strip() for piece in value[1:-1].split(",")) if part)


def joined(value: Any) -> Any:
    """A part written in brackets for the commas in it came as a tuple: its text again."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def tupled(value: Any) -> Any:
    """Lists as tuples, all the way down: settings read from a file equal those written there."""
    return tuple(map(tupled, value)) if isinstance(value, list | tuple) else value


def spec(name: str, **settings: Any) -> Spec:
    """Shorthand for `Spec(name=..., ...)`."""
    return Spec(name=name, **settings)
