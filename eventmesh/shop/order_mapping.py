"""The mapping file: which column of a file of sales means what, and which of its rows are refused.

A wrong mapping is refused as a whole, before any data is read, and the error says what is allowed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from eventmesh import configuration
from eventmesh.configuration import mistake, nearest

Role = Literal["order", "sku", "quantity", "unit_price", "line_total", "time", "customer", "country"]
ROLES: tuple[Role, ...] = (
    "order", "sku", "quantity", "unit_price", "line_total", "time", "customer", "country",
)  # fmt: skip
NO_QUOTE = "none"
ColumnName = Annotated[str, Field(min_length=1)]
#: Long enough that a codec made for short names says so, and with what every export holds.
_PROBE = "order;sku,quantity\r\n" * 20
_A_TIME = datetime(2024, 10, 27, 13, 5, tzinfo=UTC)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_sign(sign: str) -> str:
    """A sign that can stand between cells, around them, or within a number."""
    if sign == r"\t":
        raise mistake("must be one character", r'Write a tab in double quotes: "\t"')
    if len(sign) != 1:
        raise mistake("must be one character")
    if sign.isalnum() or sign in "\0\r\n":
        raise mistake("must be a character that can stand between two values: no letter, digit or line break")
    return sign


def _no_number(currency: str) -> str:
    if not currency.strip() or any(sign.isdigit() or sign in "+-" for sign in currency):
        raise mistake("must be a currency's sign, such as € or USD, without digits")
    return currency.strip()


Sign = Annotated[str, AfterValidator(_one_sign)]
Currency = Annotated[str, AfterValidator(_no_number)]


class Price(_Section):
    """Where a price stands and what it counts: ``major`` units (pounds) with so many decimals, or ``minor``."""

    column: ColumnName
    unit: Literal["major", "minor"] = "major"
    decimals: int = Field(default=2, ge=0, le=8, description="Decimals of a major unit; pounds have 2, yen 0.")
    rounding: Literal["half_even", "half_up"] = "half_even"
    currency: Currency | None = Field(None, description="A sign before or behind the number, such as € or USD.")


class Cancellations(_Section):
    """Orders whose name begins with ``prefix`` are returns; ``quantities`` says how the file counts them."""

    prefix: str = Field(min_length=1)
    quantities: Literal["negative", "positive"] = "negative"


class Refusals(_Section):
    """Which rows are refused although they can be read; prices are tested before they are rounded."""

    quantity: Literal["<= 0"] = "<= 0"  # an order of nothing has no meaning further on
    unit_price: Literal["<= 0", "< 0"] = Field("<= 0", description="Of a line's total as well.")
    customer: Literal["never", "missing"] = "never"


class CsvFormat(_Section):
    """How a text file is written. ``decimal`` and ``thousands`` hold for text in a Parquet file as well."""

    delimiter: Sign | None = Field(None, description="Left out: what a first line sep=; says, else a comma.")
    encoding: str = "utf8"
    quote: str = Field('"', description="The mark around a value; none where the file does not quote.")
    decimal: Sign | None = Field(None, description="The sign before the decimals; left out: a point.")
    thousands: Sign | None = Field(None, description="The sign between groups of digits; left out: there is none.")

    @field_validator("encoding")
    @classmethod
    def _encodes_text(cls, encoding: str) -> str:
        try:
            read = TextIOWrapper(BytesIO(_PROBE.encode(encoding)), encoding, newline="").read()
        except (LookupError, ValueError):  # hex and rot13 are codecs, but none of text
            read = ""
        if read != _PROBE:
            raise mistake("must be the name of a text encoding, such as utf8, utf-16 or cp1252")
        return encoding

    @field_validator("quote")
    @classmethod
    def _marks(cls, quote: str) -> str:
        if quote != NO_QUOTE and (len(quote) != 1 or quote.isalnum() or quote.isspace() or quote == "\0"):
            raise mistake('must be one mark, such as ", or none where the file does not quote')
        return quote

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.delimiter in (self.quote, "\ufeff"):
            raise mistake(f"delimiter and quote must differ, but both are {self.quote!r}")
        if self.thousands is not None and self.thousands == self.decimal:
            raise mistake(f"decimal and thousands must differ, but both are {self.decimal!r}")
        return self


class OrderMapping(_Section):
    """Which column of a file means what: the contents of a file in ``configs/mappings``."""

    schema_: Literal["eventmesh.mapping/1"] = Field(alias="schema")
    order: ColumnName
    sku: ColumnName
    quantity: ColumnName
    unit_price: Price | None = Field(None, description="What one unit costs; either this or line_total.")
    line_total: Price | None = Field(None, description="What the whole line costs; either this or unit_price.")
    time: ColumnName
    time_format: str | None = Field(None, description="As in strptime, for text; left out: ISO 8601.")
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        None, description="Times are numbers: so many seconds, or smaller parts, since 1970 in UTC."
    )
    customer: ColumnName | None = None
    country: ColumnName | None = None
    timezone: str = Field("UTC", description="Of times that name none.")
    fill: Literal["first_line"] | None = Field(
        None, description="first_line: time, customer and country of an order's first line hold where others have none."
    )
    cancellations: Cancellations | None = None
    refuse: Refusals = Refusals()
    csv: CsvFormat = CsvFormat()

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            zone(name)
        except (KeyError, ValueError, OSError):
            raise mistake("must be the name of a time zone", nearest(name, available_timezones())) from None
        return name

    @field_validator("time_format")
    @classmethod
    def _names_a_day(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        if re.search(r"(?<!%)(%%)*%s", pattern):
            raise mistake("must be a format of strptime, which has no %s", "For seconds since 1970 set time_unit: s")
        try:
            day = datetime.strptime(_A_TIME.strftime(pattern), pattern).date()
        except (ValueError, re.error):  # re.error: the same directive twice
            raise mistake("must be a format of strptime, such as '%d/%m/%Y %H:%M'") from None
        if day != _A_TIME.date():
            raise mistake("must be a format of strptime that names a year, a month and a day")
        return pattern.strip()

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.unit_price is None) == (self.line_total is None):
            found = "neither is" if self.unit_price is None else "both are"
            raise mistake(f"one of unit_price and line_total must be mapped, {found}")
        if self.time_format is not None and self.time_unit is not None:
            raise mistake("time_format is for text and time_unit for numbers: keep one of them")
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a mapping file. Raises ConfigurationError with file, path inside, found and allowed."""
        return configuration.validate(cls, configuration.read(path), file=str(path))

    @property
    def priced(self) -> tuple[Role, Price]:
        """Which of the two roles holds the price, and how."""
        if self.unit_price is not None:
            return "unit_price", self.unit_price
        assert self.line_total is not None, "the validator above"
        return "line_total", self.line_total

    def columns(self) -> dict[Role, str]:
        """The file's column of each role; roles that are not mapped are left out."""
        role, price = self.priced
        named = {role: getattr(self, role) for role in ROLES} | {"unit_price": None, "line_total": None}
        named[role] = price.column
        return {role: named[role] for role in ROLES if named[role] is not None}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a mapping file, for editors."""
        schema = cls.model_json_schema(by_alias=True)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def zone(name: str) -> tzinfo:
    """The time zone of that name; KeyError, ValueError or OSError where there is none."""
    return UTC if name == "UTC" else ZoneInfo(name)
