"""Reads configuration files: YAML into pydantic models. A mistake becomes a :class:`ConfigurationError` that names
the file, the path inside it, what was found, what is allowed, and the nearest allowed word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from eventmesh.errors import ConfigurationError

#: What a user calls the types that pydantic names in Python's words, by pydantic's error type.
_PLAIN = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}
_TYPES = {"str": "text", "int": "number", "float": "number"}
Location = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


def suggestion(found: object, allowed: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest allowed one, if any is near, and all that are allowed, sorted."""
    words = sorted(allowed)
    near = difflib.get_close_matches(str(found), words, n=1)
    question = [f"Did you mean {near[0]!r}?"] if near else []
    return " ".join([*question, f"Allowed: {', '.join(words) or 'none'}"])


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


def validate(model: type[Model], document: Any, *, file: str = "", path: str = "", beside: Iterable[str] = ()) -> Model:
    """``document`` as a ``model`` that knows no other keys than its own.

    ``path`` says where in the file the document stands; ``beside`` are keys of the same mapping that another model
    has read, and that a hint must name too. Raises :class:`ConfigurationError` for the first mistake, unknown keys
    first, since a mistyped key also looks like a missing one.
    """
    try:
        return model.model_validate(document, extra="forbid")
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    mistake = min(mistakes, key=lambda each: each["type"] != "extra_forbidden")
    location: Location = mistake["loc"]
    allowed = [*_keys_at(model, location[:-1]), *(beside if len(location) == 1 else ())]
    problem, hint = _explain(mistake, allowed)
    raise ConfigurationError(problem, file=file, path=dotted(location, path), hint=hint)


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
    text = repr(value) if not isinstance(value, bool) else repr(value).lower()
    kind = _TYPES.get(type(value).__name__, type(value).__name__)
    return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read as text: {error}", file=str(path)) from error


def no_such_file(path: Path, more: str = "") -> ConfigurationError:
    """The error for a file that is not there: which are near it, and what else may be named."""
    hint = ". ".join(each for each in (_neighbours(path), more) if each)
    return ConfigurationError("no such file", file=str(path), hint=hint)


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either"
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"}]
    return suggestion(path.name, names) if names else f"No YAML file is in {path.parent}"


def _parse(text: str, file: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        for path, key, first, again in _repeated(root, "", set()):
            problem = f"the key {key!r} stands twice, in lines {first + 1} and {again + 1}"
            raise ConfigurationError(problem, file=file, path=path, hint=_why_once(path))
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-01
        raise ConfigurationError(_syntax(error), file=file) from error
    finally:
        loader.dispose()


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


def _syntax(error: yaml.YAMLError | ValueError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"is not valid YAML: {error}"
    problem = getattr(error, "problem", None) or "syntax error"
    return f"is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _explain(mistake: Mapping[str, Any], allowed: list[str]) -> tuple[str, str]:
    """The problem and the hint for one of pydantic's errors, in a mapping with these ``allowed`` keys."""
    kind, found, key = mistake["type"], mistake["input"], (mistake["loc"] or ("",))[-1]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", suggestion(key, allowed)
    if kind == "missing":
        return f"the key {key!r} is missing", f"Allowed: {', '.join(sorted(allowed))}"
    if kind == "literal_error":
        expected = mistake["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
        return f"unknown value {found!r}", suggestion(found, expected.split(", "))
    if kind in _PLAIN:
        return f"must be {_PLAIN[kind]}, found {describe(found)}", ""
    return f"{re.sub(r'^[A-Z][a-z]+ should', 'must', mistake['msg'])}, found {describe(found)}", ""


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that ``model`` allows in the mapping at ``location``, in the order of its fields."""
    schema = model.model_json_schema(by_alias=True)
    node = _resolve(schema, schema)
    for step in location:
        node = _resolve(schema, _below(node, step))
    return list(node.get("properties", {}))


def _below(node: Mapping[str, Any], step: int | str) -> Any:
    if isinstance(step, int):
        return node.get("items", {})
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
