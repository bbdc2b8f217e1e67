"""A question of the owner of a table, with the same type of answer as a local view's ``lookup``.

Either way a key is answered by ``(version, *values)``: the offset of the fact that the values come
from, or version -1 and nulls where nothing is known of the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import astuple

from eventmesh.declared import Answer, Query
from eventmesh.views import ViewShape

Joined = tuple[Any, ...]


@dataclass(frozen=True)
class RemoteJoin:
    """Ask the owner: as fresh as the answer's way back, and only while the owner is there.

    The question has the columns of the shape's key, in their order. The answer has ``version``, then the columns of the
    shape in theirs, an aggregate as one. ``ValueError`` for a shape with ``rows``: a question has one answer.
    """

    query: type[Query[Any]]
    shape: ViewShape

    def __post_init__(self) -> None:
        if self.shape.rows:
            name = self.query.__name__
            raise ValueError(f"{name} answers with one row, and the shape keeps many under {self.shape.key!r}")

    def questions(self, keys: Sequence[Any]) -> list[Query[Any]]:
        """One question per key, for :meth:`~eventmesh.service.Talk.ask`."""
        if isinstance(self.shape.key, str):
            return [self.query(key) for key in keys]
        return [self.query(*key) for key in keys]

    def read(self, answers: Sequence[Answer]) -> list[Joined]:
        """The answers as a local look-up would give them."""
        return [astuple(answer) for answer in answers]
