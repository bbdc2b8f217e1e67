"""The mapping file: which column of a file of sales means what, and which of its rows are refused.

A wrong mapping is refused as a whole, before any data is read, and the error says what is allowed.
"""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Hashable, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from eventmesh.errors import ConfigurationError

Role = Literal["order", "sku", "quantity", "unit_price", "time", "customer", "country"]
ROLES: tuple[Role, ...] = ("order", "sku", "quantity", "unit_price", "time", "customer", "country")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitPrice(_Strict):
    """Where the price stands and what it counts: ``major`` units (pounds) with so many decimals, or ``minor``."""

    column: str = Field(min_length=1)
    unit: Literal["major", "minor"] = "major"
    decimals: int = Field(default=2, ge=0, le=8)
    rounding: Literal["half_even", "half_up"] = "half_even"


class Cancellations(_Strict):
    """Orders whose name begins with ``prefix`` are returns; ``quantities`` says how the file counts them."""

    prefix: str = Field(min_length=1)
    quantities: Literal["negative", "positive"] = "negative"


class Refusals(_Strict):
    """Which rows are refused although they can be read; prices are tested before they are rounded."""

    quantity: Literal["<= 0"] = "<= 0"  # an order of nothing has no meaning further on
    unit_price: Literal["<= 0", "< 0"] = "<= 0"
    customer: Literal["never", "missing"] = "never"


class CsvFormat(_Strict):
    """How a text file is written; Parquet files need none of it."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf8"

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError("the name of a text encoding, such as utf8 or latin1") from None
        return encoding


class OrderMapping(_Strict):
    """Which column of a file means what: the contents of a file in ``configs/mappings``."""

    schema_: Literal["eventmesh.mapping/1"] = Field(alias="schema")
    order: str = Field(min_length=1)
    sku: str = Field(min_length=1)
    quantity: str = Field(min_length=1)
    unit_price: UnitPrice
    time: str = Field(min_length=1)
    time_format: str | None = None  # as in strptime, for text; without it ISO 8601
    customer: str | None = None
    country: str | None = None
    timezone: str = "UTC"  # of times that name none
    cancellations: Cancellations | None = None
    refuse: Refusals = Refusals()
    csv: CsvFormat = CsvFormat()

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            zone(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"the name of a time zone{nearest(name, sorted(available_timezones()))}") from None
        return name

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a mapping file. Raises ConfigurationError with file, path inside, found and allowed."""
        content = _load_yaml(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise _configuration_error(error, cls, str(path)) from None

    def columns(self) -> dict[Role, str]:
        """The file's column of each role; roles that are not mapped are left out."""
        named = {role: getattr(self, role) for role in ROLES} | {"unit_price": self.unit_price.column}
        return {role: named[role] for role in ROLES if named[role] is not None}


def _load_yaml(path: Path | str) -> dict[str, Any]:
    try:
        node = yaml.compose(Path(path).read_text(encoding="utf8"), yaml.SafeLoader)
        _refuse_repeated_keys(node, str(path))
        content = yaml.safe_load(yaml.serialize(node)) if node else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the mapping file cannot be read ({cause(error)})", file=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}", file=str(path)) from error
    if not isinstance(content, dict):
        problem = f"found {type(content).__name__}, allowed: keys and values with schema: eventmesh.mapping/1"
        raise ConfigurationError(problem, file=str(path))
    return content


def _refuse_repeated_keys(node: yaml.Node | None, file: str) -> None:
    # YAML forbids them, but the parser would quietly take the last.
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise ConfigurationError(f"the key stands twice, again in line {line}", file=file, path=str(key.value))
        seen.add(key.value)
        _refuse_repeated_keys(value, file)


def _configuration_error(error: ValidationError, model: type[BaseModel], file: str) -> ConfigurationError:
    first, *others = error.errors()
    path = ".".join(str(part) for part in first["loc"])
    hint = f"Also wrong: {', '.join('.'.join(map(str, other['loc'])) for other in others)}" if others else ""
    return ConfigurationError(_problem(first, model), file=file, path=path, hint=hint)


def _problem(error: Any, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        allowed = _keys_at(error["loc"][:-1], model)
        key = str(error["loc"][-1])
        return f"found the unknown key {key!r}, allowed: {', '.join(allowed)}{nearest(key, allowed)}"
    if error["type"] == "model_type":
        return f"found {error['input']!r}, allowed: the keys {', '.join(_keys_at(error['loc'], model))}"
    if error["type"] == "missing":
        return "found nothing, but this key is required"
    allowed_text = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"found {error['input']!r}, allowed: {allowed_text}"


def _keys_at(location: Sequence[Hashable], model: type[BaseModel]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]


def zone(name: str) -> tzinfo:
    """The time zone of that name; KeyError, ValueError or OSError where there is none."""
    return UTC if name == "UTC" else ZoneInfo(name)


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message: the most similar of ``names``, or nothing where none is similar."""
    near = difflib.get_close_matches(name, names, n=1) or [n for n in names if n.lower() == name.lower()]
    return f"; did you mean {near[0]!r}?" if near else ""


def cause(error: Exception) -> str:
    """What went wrong with a file, without its name."""
    return getattr(error, "strerror", None) or str(error)
