"""What callers ask of a mesh: requests as columns, made once before anything is sent, and a workload made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from eventmesh.application import optional
from eventmesh.declared import Command, Query, checked_row, stored_schema
from eventmesh.errors import ConfigurationError
from eventmesh.messages import encode_rows

Item = TypeVar("Item")


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
    def of(cls, asked: Sequence[Command[Any] | Query[Any]], at: np.ndarray | None = None) -> Requests:
        """Of commands and queries; ``at`` is the intended time of each, all at the start where it is None.

        ``DoesNotFit`` for a value that its column does not take, ``TypeError`` for one without a key: callers name no
        partitions.
        """
        kinds = sorted({type(each) for each in asked}, key=lambda kind: kind.__name__)
        for kind in kinds:
            if kind.__key__ is None:
                raise TypeError(f"{kind.__name__} has no key, so that a caller cannot say which partition it is for")
        rows = [checked_row(each, type(each), type(each).__name__) for each in asked]
        keys = [str(row[str(each.__key__)]) for each, row in zip(asked, rows, strict=True)]
        schema = pa.schema({field.name: field for kind in kinds for field in stored_schema(kind)}.values())
        moments = np.zeros(len(rows), np.int64) if at is None else at
        return cls([type(each).__name__ for each in asked], keys, encode_rows(schema, rows), moments)

    def __len__(self) -> int:
        return len(self.commands)

    def take(self, places: np.ndarray) -> Requests:
        """The requests at these places, in that order."""
        commands, keys = [self.commands[i] for i in places], [self.keys[i] for i in places]
        return Requests(commands, keys, self.payload.take(pa.array(places)), self.at[places])


class WorkloadOptions(BaseModel):
    """What every application's ``workload(options)`` is told.

    An application that lets its users choose more names a subclass as ``WORKLOAD``: each further field is an option of
    ``eventmesh run``, with its type, bounds, default and description. ``rate`` is requests per second, None as fast as
    possible. ``number`` counts the runs on a mesh that stays: what a later run makes up from the seed needs other names
    than that of an earlier one. ``asked`` is what callers asked of the mesh before, and were told
    (:data:`eventmesh.history.CALLERS`): what was brought in for them is there. None: it is a new mesh.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True)

    seed: int = 0
    rate: float | None = None
    number: int = 1
    asked: SkipJsonSchema[pa.Table | None] = None


@dataclass(frozen=True)
class Workload:
    """What a run asks: first the seeding, stage by stage and each to its end, then the load.

    ``window`` bounds the open requests of the load. Of an input that was read, ``summary`` has the counts, which become
    the ``import`` part of ``run.json``, and ``told`` says the same in a sentence. ``seeding_name`` names the seeding by
    what it brings in for whom, so that a mesh that has had it knows it again whichever run asks; None: the run's own.
    """

    seeding: Sequence[Requests]
    load: Requests
    window: int = 1_000_000
    summary: Mapping[str, Any] | None = None
    told: str = ""
    write_refused: Callable[[Path], None] | None = None  # writes the rows of the input that were refused
    seeding_name: str | None = None


class Dice(Protocol):
    """The part of ``random.Random`` that is needed."""

    def random(self) -> float:
        """A number from 0 to 1."""
        ...

    def randint(self, low: int, high: int, /) -> int:
        """A whole number from ``low`` to ``high``."""
        ...

    def choice(self, items: Sequence[Item], /) -> Item:
        """One of them."""
        ...


class Variation(BaseModel):
    """What a fuzzer varies of an application beside the faults, as data: options of its services, and its load.

    An application that has more to vary names a subclass as ``VARIATION``: a field for each thing, whose default is
    the plainest. ``requests`` is how many the load has, at most, and ``rate`` how many of them come in a second.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    requests: int = Field(30, ge=1, le=10_000)
    rate: float = Field(400.0, gt=0, allow_inf_nan=False)

    @classmethod
    def drawn(cls, dice: Dice) -> Self:
        """One that the dice choose."""
        return cls(requests=dice.randint(15, 35), rate=dice.choice((200.0, 500.0, 2_000.0)))

    def options(self, wiring: str, services: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """By service, the keys that it sets: they stand before those of the mesh file, which ``services`` has."""
        return {}

    def workload(self, application: Any, seed: int) -> Workload:
        """What callers ask. Raises :class:`ConfigurationError` where the application has no workload."""
        make = optional(application, "workload")
        if make is None:
            raise ConfigurationError("the application has no workload, so there is nothing to run")
        model: type[WorkloadOptions] = optional(application, "WORKLOAD") or WorkloadOptions
        whole: Workload = make(model(seed=seed, rate=self.rate))
        return replace(whole, load=whole.load.take(np.arange(min(self.requests, len(whole.load)))))

    def problems(self, workload: Workload, facts: Callable[[str], pa.Table]) -> Mapping[str, str]:
        """What is wrong with a finished run and no audit can see, since only who asked knows it.

        ``facts`` gives the rows of a topic, partition by partition. By name, a sentence each.
        """
        return {}
