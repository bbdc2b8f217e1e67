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

    The question has one column, the key; the answer ``version``, then the columns of ``shape`` in their order.
    """

    query: type[Query[Any]]
    shape: ViewShape

    def questions(self, keys: Sequence[str]) -> list[Query[Any]]:
        """One question per key, for :meth:`~eventmesh.service.Talk.ask`."""
        return [self.query(key) for key in keys]

    def read(self, answers: Sequence[Answer]) -> list[Joined]:
        """The answers as a local look-up would give them."""
        return [astuple(answer) for answer in answers]
