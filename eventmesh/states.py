"""What the state of a service may be: of a type that a snapshot gives back, as its ``initial`` says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

#: What a snapshot holds, as it is told to whoever has something else.
ALLOWED = "dataclasses, named tuples, dict, list, tuple, set, and scalars"


class NoSnapshot(TypeError):
    """A state of a type that no snapshot gives back, or of none that anybody knows."""


def state_type(service: type) -> Any:
    """The type that ``service.initial`` says it returns. Raises :class:`NoSnapshot`."""
    name = service.__name__
    try:
        found = get_type_hints(service.initial).get("return", Any)  # type: ignore[attr-defined]
    except NameError as error:
        raise NoSnapshot(f"the annotation of {name}.initial cannot be read: {error}") from error
    if found in (Any, None, type(None)):
        raise NoSnapshot(f"{name}.initial does not say what it returns: write def initial(self) -> YourState")
    try:
        msgspec.msgpack.Decoder(found)
        strange = list(_strange(inspect.type_info(found), "", set()))
    except TypeError as error:
        raise NoSnapshot(f"the state of {name} cannot be kept in a snapshot: {error}") from error
    if strange:
        where, kind = strange[0]
        place = f"{found.__name__}{where}" if where else "it"
        raise NoSnapshot(
            f"the state of {name} cannot be kept in a snapshot: {place} has a {kind.__name__}. Allowed: {ALLOWED}"
        )
    return found


def digest(state: Any) -> str:
    """What tells two states apart, in 32 hexadecimal digits: mappings and sets in any order are the same.

    ``TypeError`` for a state that no snapshot keeps.
    """
    return hashlib.blake2b(msgspec.msgpack.encode(state, order="deterministic"), digest_size=16).hexdigest()


def _strange(kind: Any, where: str, seen: set[int]) -> Iterator[tuple[str, type]]:
    """What no snapshot gives back, with the path of the field that has it."""
    if id(kind) in seen:
        return
    seen.add(id(kind))
    if isinstance(kind, inspect.CustomType):
        yield where, kind.cls
    for part in getattr(kind, "fields", ()):
        yield from _strange(part.type, f"{where}.{part.name}", seen)
    inner = [getattr(kind, name, None) for name in ("item_type", "key_type", "value_type")]
    for part in (*inner, *getattr(kind, "types", ()), *getattr(kind, "item_types", ())):
        if part is not None:
            yield from _strange(part, where, seen)
