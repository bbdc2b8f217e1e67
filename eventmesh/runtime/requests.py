"""What a caller will ask, as columns: made once, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from eventmesh.messages import MessageType, encode_rows
from eventmesh.runtime.effects import Row


@dataclass(frozen=True)
class Requests:
    """What a caller will ask, in order. ``at`` is the intended time of each, microseconds after the start.

    ``payload`` has a row per request and the columns of all commands' questions; what a command does not
    ask is null.
    """

    commands: Sequence[str]
    keys: Sequence[str]
    payload: pa.RecordBatch
    at: np.ndarray  # int64, shape (n,), not decreasing

    @classmethod
    def of_rows(
        cls,
        messages: Mapping[str, MessageType],
        commands: Sequence[str],
        keys: Sequence[str],
        rows: Sequence[Row],
        at: np.ndarray,
    ) -> Requests:
        """Of rows as dicts with the columns of each command's question."""
        asked = (field for command in sorted(set(commands)) for field in messages[command].question)
        schema = pa.schema({field.name: field for field in asked}.values())
        return cls(commands, keys, encode_rows(schema, rows), at)

    def __len__(self) -> int:
        return len(self.commands)

    def take(self, places: np.ndarray) -> Requests:
        """The requests at these places, in that order."""
        commands, keys = [self.commands[i] for i in places], [self.keys[i] for i in places]
        return Requests(commands, keys, self.payload.take(pa.array(places)), self.at[places])
