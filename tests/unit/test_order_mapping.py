"""Given a mapping file with a mistake, then the error says where it is, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eventmesh.errors import ConfigurationError
from eventmesh.shop.order_mapping import OrderMapping
from tests.unit.order_story import MAPPING_FILE

TEXT = MAPPING_FILE.read_text(encoding="utf8")


def load(folder: Path, text: str) -> OrderMapping:
    path = folder / "mapping.yaml"
    path.write_text(text, encoding="utf8")
    return OrderMapping.load(path)


def with_keys(folder: Path, **keys: Any) -> OrderMapping:
    return load(folder, yaml.safe_dump({**yaml.safe_load(TEXT), **keys}))


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("sku: StockCode", "skuu: StockCode", "skuu", r"unknown key 'skuu'\. Did you mean 'sku'\?"),
        ("sku: StockCode", "", "sku", "the key 'sku' is missing"),
        ("country:", "contry:", "contry", r"unknown key 'contry'\. Did you mean 'country'\? Allowed: cancellations, "),
        ("decimals: 2", "decimal: 2", "unit_price.decimal", r"Did you mean 'decimals'\? Allowed: column, currency, "),
        ("prefix: C", "prefx: C", "cancellations.prefx", "Did you mean 'prefix'"),
        ("unit: major", "unit: pounds", "unit_price.unit", r"unknown value 'pounds'\. Allowed: major, minor"),
        ("decimals: 2", "decimals: two", "unit_price.decimals", "must be a whole number, found text 'two'"),
        ("decimals: 2", "decimals: 2.5", "unit_price.decimals", "must be a whole number, found number 2.5"),
        ("mapping/1", "mapping/2", "schema", r"unknown value 'eventmesh.mapping/2'\. Did you mean"),
        ("timezone: UTC", "timezone: Europe/Lodon", "timezone", "time zone, found .*Did you mean 'Europe/London'"),
        ("timezone: UTC", "timezone: europe/london", "timezone", "Did you mean 'Europe/London'"),
        ("country: Country", "sku: Country", "sku", "the key 'sku' stands twice, in lines 5 and 10"),
        ("csv: {decimal: .}", "csv: comma", "csv", "must be a mapping, found text 'comma'"),
        ("country: Country", "country: [", "", "is not valid YAML: line"),
    ],
)
def test_a_wrong_mapping_says_where_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, path: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(tmp_path, TEXT.replace(old, new))
    assert (caught.value.file, caught.value.path) == (str(tmp_path / "mapping.yaml"), path)


@pytest.mark.parametrize(("content", "found"), [("", "found nothing"), ("- a\n- b\n", "found a list")])
def test_a_mapping_file_without_keys_is_refused(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match=f"must be a mapping of keys to values, {found}"):
        load(tmp_path, content)
    with pytest.raises(ConfigurationError, match=r"no such file.*Did you mean 'mapping\.yaml'"):
        OrderMapping.load(tmp_path / "maping.yaml")


def test_a_mapping_that_is_no_text_says_where(tmp_path: Path) -> None:
    (tmp_path / "latin1.yaml").write_bytes(f"{TEXT}# Gr\u00f6\u00dfe\n".encode("latin1"))
    with pytest.raises(ConfigurationError, match=r"line 17 is not UTF-8 \(byte \d+ is 0xf6\)\. Write the file in"):
        OrderMapping.load(tmp_path / "latin1.yaml")
    with pytest.raises(ConfigurationError, match=r"it is a folder\. Name a file in it: latin1.yaml$"):
        OrderMapping.load(tmp_path)


@pytest.mark.parametrize("encoding", ["hex", "rot13", "base64", "bz2", "uu", "idna", "undefined", "utf9", "", "\0"])
def test_what_is_no_text_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigurationError, match=r"csv\.encoding: must be the name of a text encoding, such as utf8"):
        with_keys(tmp_path, csv={"encoding": encoding})


@pytest.mark.parametrize("sign", ["", "||", "\n", "\r", "\0", "a", "7", ", "])
@pytest.mark.parametrize("key", ["delimiter", "decimal", "thousands"])
def test_what_can_be_no_sign_is_refused(tmp_path: Path, key: str, sign: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"csv\.{key}: must be (one|a) character"):
        with_keys(tmp_path, csv={key: sign})


def test_a_tab_that_was_written_without_double_quotes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'Write a tab in double quotes: "\\t"'):
        with_keys(tmp_path, csv={"delimiter": r"\t"})


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ({"delimiter": '"'}, "delimiter and quote must differ, but both are '\"'"),
        ({"delimiter": "|", "quote": "|"}, "delimiter and quote must differ"),
        ({"decimal": ",", "thousands": ","}, "decimal and thousands must differ, but both are ','"),
        ({"thousands": "."}, None),  # the decimals have a comma then
        ({"delimiter": '"', "quote": "none"}, None),
        ({"quote": "nothing"}, "must be one mark, such as"),
        ({"quote": "a"}, "must be one mark, such as"),
    ],
)
def test_signs_stand_apart(tmp_path: Path, csv: dict[str, str], said: str | None) -> None:
    if said is None:
        assert with_keys(tmp_path, csv=csv).csv.quote
        return
    with pytest.raises(ConfigurationError, match=said):
        with_keys(tmp_path, csv=csv)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("%s", r"which has no %s, found text '%s'\. For seconds since 1970 set time_unit: s"),
        ("%Y-%m-%d %s", "set time_unit: s"),
        ("%Q", "must be a format of strptime, such as"),
        ("%-d/%m/%Y", "must be a format of strptime, such as"),
        ("%Y-%Y", "must be a format of strptime, such as"),
        ("%d/%m/%Y %", "must be a format of strptime, such as"),
        ("%H:%M", "names a year, a month and a day"),
        ("%m/%d %H:%M", "names a year, a month and a day"),
        ("", "names a year, a month and a day"),
    ],
)
def test_a_format_that_can_fit_no_day_is_refused(tmp_path: Path, pattern: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        with_keys(tmp_path, time_format=pattern)
    assert caught.value.path == "time_format"


@pytest.mark.parametrize(
    "pattern", ["%d.%m.%y", "%Y-%j", "%c", "%G-W%V-%u", "%d %b %Y %I:%M %p", "%Y%%s %m %d", "%x %X %z"]
)
def test_other_formats_are_taken(tmp_path: Path, pattern: str) -> None:
    assert with_keys(tmp_path, time_format=pattern).time_format == pattern


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"time_format": "%d/%m/%Y", "time_unit": "s"}, "time_format is for text and time_unit for numbers: keep one"),
        ({"time_unit": "minutes"}, r"time_unit: unknown value 'minutes'.*Allowed: ms, ns, s, us"),
        ({"line_total": {"column": "Total"}}, "one of unit_price and line_total must be mapped, both are"),
        ({"unit_price": None}, "one of unit_price and line_total must be mapped, neither is"),
        ({"fill": "order"}, r"fill: unknown value 'order'.*Allowed: first_line"),
        ({"unit_price": {"column": "P", "currency": "5"}}, "unit_price.currency: must be a currency's sign"),
        ({"unit_price": {"column": "P", "currency": ""}}, "unit_price.currency: must be a currency's sign"),
        ({"order": 5}, r"order: must be text, found number 5\. YAML reads .* put them in quotes"),
        ({"order": False}, r"order: must be text, found bool false\. YAML reads words such as No and On"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        with_keys(tmp_path, **keys)
