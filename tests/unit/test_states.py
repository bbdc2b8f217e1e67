"""Given the state that a service says it has, then one that no snapshot gives back is refused when the mesh is read."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tests.tiny
from eventmesh import mesh as meshes
from eventmesh.errors import ConfigurationError
from eventmesh.states import ALLOWED, NoSnapshot, state_type

MESH = Path(__file__).parents[1] / "tiny" / "mesh.yaml"


class Socket:
    """No snapshot gives it back."""


class Level(NamedTuple):
    on_hand: int
    by: tuple[str, ...]


@dataclass
class Whole:
    levels: dict[str, Level] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    next: Whole | None = None


@dataclass
class Deep:
    open: dict[str, list[Socket]] = field(default_factory=dict)


@dataclass
class Counting:
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Queued:
    waiting: list[deque[int]] = field(default_factory=list)


@dataclass
class Either:
    parts: set[str] | list[str] = field(default_factory=list)


def saying(kind: Any) -> type:
    """A service whose state is of this type, by its word."""

    def initial(self: Any) -> Any:
        return kind()

    if kind is not None:
        initial.__annotations__["return"] = kind
    else:
        del initial.__annotations__["return"]
    return type("Shelf", (), {"initial": initial})


@pytest.mark.parametrize("kind", [Whole, dict[str, int], Level, list[Level]], ids=str)
def test_what_a_snapshot_gives_back_is_allowed(kind: Any) -> None:
    assert state_type(saying(kind)) == kind


REFUSED = [
    (None, "Shelf.initial does not say what it returns: write def initial(self) -> YourState"),
    (Any, "Shelf.initial does not say what it returns: write def initial(self) -> YourState"),
    ("Absent", "the annotation of Shelf.initial cannot be read: name 'Absent' is not defined"),
    (Socket, f"the state of Shelf cannot be kept in a snapshot: it has a Socket. Allowed: {ALLOWED}"),
    (Deep, f"the state of Shelf cannot be kept in a snapshot: Deep.open has a Socket. Allowed: {ALLOWED}"),
    (
        Counting,
        "the state of Shelf cannot be kept in a snapshot: Counting.counts has a defaultdict. Allowed: dataclass",
    ),
    (Queued, f"the state of Shelf cannot be kept in a snapshot: Queued.waiting has a deque. Allowed: {ALLOWED}"),
    (Either, "the state of Shelf cannot be kept in a snapshot: Type unions may not contain more than one array-like"),
]


@pytest.mark.parametrize(("kind", "said"), REFUSED, ids=[str(kind) for kind, _ in REFUSED])
def test_what_it_does_not_is_told_with_its_place(kind: Any, said: str) -> None:
    with pytest.raises(NoSnapshot) as refused:
        state_type(saying(kind))
    assert str(refused.value).startswith(said)


def test_a_mesh_with_such_a_service_is_refused_unless_it_keeps_no_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = meshes.load(MESH).resolved()
    monkeypatch.setitem(tests.tiny.SERVICES, "shelf", saying(Counting))
    with pytest.raises(ConfigurationError) as refused:
        meshes.load(MESH)
    assert (refused.value.file, refused.value.path) == (str(MESH), "services.shelf")
    assert "Counting.counts has a defaultdict" in refused.value.problem
    assert "snapshot_rows: null" in refused.value.hint
    for log in ({"snapshot_rows": None}, {"durability": "memory"}):
        meshes.parse({**resolved, "log": {**resolved["log"], **log}})
