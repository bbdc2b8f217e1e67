"""Reads configuration files: YAML into pydantic models. A mistake becomes a :class:`ConfigurationError` that names
the file, the path inside it, what was found, what is allowed, and the nearest allowed word."""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from eventmesh.errors import ConfigurationError, StoredSetting

#: What a user calls the types that pydantic names in Python's words, by pydantic's error type.
_PLAIN = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}
#: Pydantic's error types of what a model's own validator found.
_MISTAKE, _NO_EFFECT = "mistake", "no_effect"
#: Pydantic's error types of a mapping that may be of several kinds: what says the kind is unknown, or missing.
_OTHER_KIND, _NO_KIND = "union_tag_invalid", "union_tag_not_found"
_TYPES = {"str": "text", "int": "number", "float": "number", "bytes": "binary data", "datetime": "date"}
#: What YAML's own types are called.
_KINDS = {"int": "whole number", "float": "number", "bool": "truth value", "timestamp": "date", "binary": "base64"}
#: A configuration has kilobytes. What is larger is another file, or a device.
FILE_BYTES_MAX = 1_000_000
#: Levels of nesting, of which a configuration has six, and values with those that aliases stand for.
DEPTH_MAX, VALUES_MAX = 50, 1_000_000
#: Digits of a whole number. Python refuses to write out thousands of them, in an error for instance.
DIGITS_MAX = 50
Location = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


def suggestion(found: object, allowed: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest allowed one, if any is near, and all that are allowed, sorted."""
    words = sorted(allowed)
    return " ".join(part for part in (nearest(found, words), f"Allowed: {', '.join(words) or 'none'}") if part)


def nearest(found: object, allowed: Iterable[str]) -> str:
    """A hint for an unknown word of too many to list: the nearest allowed one, or nothing."""
    words = sorted(allowed)
    near = difflib.get_close_matches(str(found), words, n=1)
    near = near or [word for word in words if word.lower() == str(found).lower()]
    return f"Did you mean {near[0]!r}?" if near else ""


def mistake(problem: str, hint: str = "", key: str = "") -> PydanticCustomError:
    """For a model's validator to raise: :func:`validate` says the ``problem``, what it found, and the ``hint``.

    ``key`` names what is wrong where the validator is of the whole model.
    """
    return PydanticCustomError(_MISTAKE, "{problem}", {"problem": problem, "hint": hint, "key": key})


def no_effect(problem: str, hint: str, key: str = "") -> PydanticCustomError:
    """For a model's validator to raise where nothing follows from a value: in a file that somebody writes now, a
    mistake as any other.

    In a stored one it is passed over with a warning. ``key`` names it where the validator is of the whole model.
    """
    return PydanticCustomError(_NO_EFFECT, "{problem}", {"problem": problem, "hint": hint, "key": key})


def read(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises :class:`ConfigurationError` for a missing or unreadable file, for a syntax error (with line and column),
    for a key that stands twice in one mapping, and where the document is not a mapping.
    """
    path = Path(path)
    document = _parse(_text(path), str(path))
    if not isinstance(document, dict):
        raise ConfigurationError(f"must be a mapping of keys to values, found {describe(document)}", file=str(path))
    return document


def validate(
    model: type[Model], document: Any, *, file: str = "", path: str = "", beside: Iterable[str] = (),
    stored: bool = False,
) -> Model:  # fmt: skip
    """``document`` as a ``model`` that knows no other keys than its own.

    ``path`` says where in the file the document stands; ``beside`` are keys of the same mapping that another model
    has read, and that a hint must name too. Of a ``stored`` document, settings without effect are passed over with a
    :class:`StoredSetting`. Raises :class:`ConfigurationError` for the first mistake, unknown keys first, since a
    mistyped key also looks like a missing one.
    """
    try:
        return model.model_validate(document, extra="forbid")
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    vain = [each for each in mistakes if each["type"] == _NO_EFFECT] if stored else []
    if vain:
        for each in vain:
            problem, _ = explain(each, [])
            passed_over(problem, file=file, path=dotted(_where(each), path))
        document = _without([_where(each) for each in vain], document)
        return validate(model, document, file=file, path=path, beside=beside, stored=True)
    first = min(mistakes, key=lambda each: each["type"] != "extra_forbidden")
    location = _where(first)
    keys, written = _keys_at(model, location[:-1]), _written(model, location)
    problem, hint = explain(first, [*keys, *(beside if len(location) == 1 else ())])
    raise ConfigurationError(problem, file=file, path=dotted(written, path), hint=hint)


def passed_over(problem: str, *, file: str, path: str, instead: str = "It is passed over") -> None:
    """Warn of a setting without effect in a stored file, and say what holds ``instead``."""
    warnings.warn(f"{file}: {path}: {problem}. {instead}", StoredSetting, stacklevel=3)


def _where(error: Mapping[str, Any]) -> Location:
    """Where the mistake is; the validator of a whole model says which key it means."""
    location: Location = error["loc"]
    context = error.get("ctx", {})
    key = context.get("key") or (context["discriminator"].strip("'") if error["type"] == _OTHER_KIND else "")
    return (*location, key) if key else location


def _without(locations: Iterable[Location], document: Any) -> Any:
    """The document, or a part of it, without what stands at these places."""
    left = copy.deepcopy(document)
    for *way, last in locations:
        part = left
        for step in way:
            part = part[step]
        del part[last]
    return left


def dotted(location: Location, path: str = "") -> str:
    """``("topics", "orders", 0)`` below ``path`` as ``path.topics.orders[0]``."""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step != "[key]":  # pydantic's mark for "the key itself"
            path += f".{step}" if path else step
    return path


def describe(value: object) -> str:
    """What a user wrote, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    kind = _TYPES.get(type(value).__name__, type(value).__name__)
    return f"{kind} {_shown(value)}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return repr(value).lower()
    return _short(str(value) if isinstance(value, date) else repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:  # not all at once: a device has no end
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except IsADirectoryError as error:
        hint = f"Name a file in it: {', '.join(_files_in(path)) or 'it has none'}"
        raise ConfigurationError("cannot be read as text: it is a folder", file=str(path), hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null in it
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot be read as text: {reason}", file=str(path)) from error
    if len(content) > FILE_BYTES_MAX:
        problem = f"cannot be read as text: it has more than {FILE_BYTES_MAX:,} bytes"
        raise ConfigurationError(
            problem, file=str(path), hint="A configuration has a few kilobytes: is it the right file?"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = (
            f"cannot be read as text: line {line} is not UTF-8 (byte {error.start} is {content[error.start]:#04x})"
        )
        raise ConfigurationError(problem, file=str(path), hint="Write the file in UTF-8") from error


def _files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"})


def no_such_file(path: Path, more: str = "") -> ConfigurationError:
    """The error for a file that is not there: which are near it, and what else may be named."""
    hint = ". ".join(each for each in (_neighbours(path), more) if each)
    return ConfigurationError("no such file", file=str(path), hint=hint)


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either"
    names = _files_in(path.parent)
    return suggestion(path.name, names) if names else f"No YAML file is in {path.parent}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Says where a value stands that is none of its kind, such as the date 2020-13-01."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, int) and abs(value) >= 10**DIGITS_MAX:
                raise ValueError("too many digits")
            return value
        except yaml.YAMLError:
            raise
        # PyYAML lets through whatever its own conversions raise.
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            what = "has too many digits" if "digits" in str(error) else f"is no {_KINDS.get(kind, kind)}"
            raise yaml.constructor.ConstructorError(
                problem=f"{_short(str(node.value))} {what}", problem_mark=node.start_mark
            ) from error


def _parse(text: str, file: str) -> Any:
    try:
        loader = _Loader(text)  # reads the first characters already
        root = loader.get_single_node()
        if root is None:
            return None
        for path, key, first, again in _repeated(root, "", set()):
            problem = f"the key {key!r} stands twice, in lines {first + 1} and {again + 1}"
            raise ConfigurationError(problem, file=file, path=path, hint=_why_once(path))
        _check_size(root, file)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigurationError(_syntax(error, text), file=file) from error
    except RecursionError:
        raise _too_deep(file) from None


def _check_size(root: yaml.Node, file: str) -> None:
    """An alias stands for all that it names: a few lines of them can stand for more than any memory holds."""
    if _weight(root, {}, 0) > VALUES_MAX:
        problem = f"its aliases (*name) stand for more than {VALUES_MAX:,} values, or for themselves"
        raise ConfigurationError(problem, file=file, hint="Write the values out")


def _weight(node: yaml.Node, known: dict[int, float], depth: int) -> float:
    """How many values a node stands for, those of its aliases counted each time; without end where it holds itself."""
    if depth > DEPTH_MAX:
        raise RecursionError
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known: met again meanwhile, it holds itself
        held = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for each in held for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_weight(part, known, depth + 1) for part in parts)
    return known[id(node)]


def _too_deep(file: str) -> ConfigurationError:
    return ConfigurationError(f"is nested deeper than {DEPTH_MAX} levels", file=file, hint="Is it the right file?")


def _why_once(path: str) -> str:
    if path.startswith("topics."):
        return "A topic has one owner: keep one of the two entries"
    return "Keep one of them: YAML would silently take the last"


def _repeated(node: yaml.Node, path: str, seen: set[int]) -> Iterator[tuple[str, str, int, int]]:
    """Each key that stands twice in one mapping: its path, the key, both lines counted from 0."""
    if id(node) in seen:  # an alias, perhaps to a node that contains itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, f"{path}[{index}]", seen)
    if isinstance(node, yaml.MappingNode):
        yield from _repeated_keys(node, path, seen)


def _repeated_keys(node: yaml.MappingNode, path: str, seen: set[int]) -> Iterator[tuple[str, str, int, int]]:
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        below = dotted((str(key.value),), path)
        if isinstance(key, yaml.ScalarNode):
            name = (key.tag, key.value)
            if name in lines:
                yield below, key.value, lines[name], key.start_mark.line
            lines[name] = key.start_mark.line
        yield from _repeated(value, below, seen)


def _syntax(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that YAML does not allow
        place = getattr(error, "position", None)
        if place is None:
            return f"is not valid YAML: {' '.join(str(error).split())}"
        line, column = text.count("\n", 0, place), place - text.rfind("\n", 0, place) - 1
        return f"is not valid YAML: line {line + 1}, column {column + 1}: the character {text[place]!r} is not allowed"
    problem = getattr(error, "problem", None) or "syntax error"
    if "\\t" in problem:
        problem = "a tab. YAML is indented with blanks"
    return f"is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {problem}"


def explain(error: Mapping[str, Any], allowed: list[str]) -> tuple[str, str]:
    """The problem and the hint for one of pydantic's errors, in a mapping with these ``allowed`` keys."""
    kind, found, key = error["type"], error["input"], (error["loc"] or ("",))[-1]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", suggestion(key, allowed)
    if kind == "missing":
        return f"the key {key!r} is missing", f"Allowed: {', '.join(sorted(allowed))}"
    if kind == _OTHER_KIND:
        return f"unknown value {error['ctx']['tag']!r}", suggestion(error["ctx"]["tag"], _words(error, "expected_tags"))
    if kind == _NO_KIND and isinstance(found, Mapping):
        return f"the key {error['ctx']['discriminator']} is missing", "It says what kind of thing this is"
    if kind == "value_error":
        return str(error["ctx"]["error"]), ""
    if kind == "literal_error":
        expected = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
        return f"unknown value {found!r}", suggestion(found, expected.split(", "))
    if kind in (_MISTAKE, _NO_EFFECT):
        of_a_section = isinstance(found, Mapping | BaseModel)
        return error["msg"] + ("" if of_a_section else f", found {describe(found)}"), error["ctx"]["hint"]
    if kind == "string_type" and isinstance(found, bool | int | float):
        hint = "YAML reads words such as No and On, and digits, as something else than text: put them in quotes"
        return f"must be {_PLAIN[kind]}, found {describe(found)}", hint
    if kind in _PLAIN:
        return f"must be {_PLAIN[kind]}, found {describe(found)}", ""
    return f"{re.sub(r'^[A-Z][a-z]+ should', 'must', error['msg'])}, found {describe(found)}", ""


def _words(error: Mapping[str, Any], name: str) -> list[str]:
    return [word.strip(" '") for word in str(error["ctx"][name]).split(",")]


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that ``model`` allows in the mapping at ``location``, in the order of its fields."""
    *_, (_, node) = _steps(model, location)
    return list(node.get("properties", {}))


def _written(model: type[BaseModel], location: Location) -> Location:
    """``location`` as it stands in the file: without pydantic's steps into one kind of several."""
    return tuple(step for step, _ in _steps(model, location) if step is not None)


def _steps(model: type[BaseModel], location: Location) -> Iterator[tuple[int | str | None, Mapping[str, Any]]]:
    """Each step with the schema below it; None for one that is in no file."""
    schema = model.model_json_schema(by_alias=True)
    node = _resolve(schema, schema)
    yield None, node
    for step in location:
        kinds = _kinds(node)
        node = _resolve(schema, {"$ref": kinds[step]} if step in kinds else _below(node, step))
        yield None if step in kinds else step, node


def _kinds(node: Mapping[str, Any]) -> Mapping[int | str, str]:
    """Of a mapping that may be of several kinds, the schema of each by its name."""
    kinds: Mapping[int | str, str] = node.get("discriminator", {}).get("mapping", {})
    return kinds


def _below(node: Mapping[str, Any], step: int | str) -> Any:
    if isinstance(step, int):
        prefix = node.get("prefixItems", ())
        return prefix[step] if step < len(prefix) else node.get("items", {})
    named = node.get("properties", {}).get(step)
    patterns = list(node.get("patternProperties", {}).values())
    return named or (patterns[0] if patterns else node.get("additionalProperties", {}))


def _resolve(schema: Mapping[str, Any], node: Any) -> Mapping[str, Any]:
    if not isinstance(node, Mapping):  # additionalProperties: true
        return {}
    if "$ref" in node:
        return _resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    variants = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    return _resolve(schema, variants[0]) if variants else node
