"""How any Arrow Flight client finds its way: what a server offers, as Flight's own descriptors, tickets and errors.

An offer is a partition: its descriptor is the path ``[topic, partition]``, its ticket the one of ``do_get``. The path
``[topic]`` names all partitions of a topic, an endpoint for each. Nothing is served here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import EnvironmentUnavailable, EventmeshError, InputError, LogStopped, NotFound

#: Characters of a client's own words that an error repeats.
SHOWN_MAX = 100


@dataclass(frozen=True)
class Offer:
    """A partition that can be read: the offsets ``[start, end)``, the control records among them included.

    An offset is one of the log of ``cluster_id``: what was restored from a backup is another log.
    """

    cluster_id: str
    topic: str
    partition: int
    schema: pa.Schema
    start: int
    end: int

    @property
    def ticket(self) -> bytes:
        """Everything from the start on."""
        return f"{self.topic}/{self.partition}/{self.start}".encode()


def shown(word: str) -> str:
    """What a client sent, for an error: an answer of more than a few thousand bytes would not reach it."""
    return repr(word if len(word) <= SHOWN_MAX else word[:SHOWN_MAX] + "...")


def named(offers: Sequence[Offer], path: Sequence[bytes]) -> list[Offer]:
    """The offers that ``[topic]`` or ``[topic, partition]`` names, at least one; ``NotFound`` or ``InputError``."""
    if not offers:
        raise NotFound("this process serves no partitions: ask the broker, whose address `eventmesh status` shows")
    words = [each.decode(errors="replace") for each in path]
    if not 1 <= len(words) <= 2:
        raise InputError(f"found a path of {len(words)} words: expected a topic and, if one is meant, its partition")
    found = [each for each in offers if each.topic == words[0]]
    if not found:
        known = ", ".join(sorted({each.topic for each in offers}))
        raise NotFound(f"there is no topic {shown(words[0])}; the topics are {known}")
    chosen = [each for each in found if words[1:] in ([], [str(each.partition)])]
    if not chosen:
        raise NotFound(f"{words[0]} has partitions 0 to {len(found) - 1}, not {shown(words[1])}")
    return chosen


def described(offers: Sequence[Offer], descriptor: Any) -> list[Offer]:
    """What a client's descriptor names."""
    if descriptor.descriptor_type != flight.DescriptorType.PATH:
        raise InputError("descriptors are paths here: [topic] or [topic, partition], such as ['TOPIC', '0']")
    return named(offers, descriptor.path)


def listed(offers: Sequence[Offer], criteria: bytes) -> list[Offer]:
    """All that is offered, or of it what ``topic`` or ``topic/partition`` names."""
    return named(offers, criteria.split(b"/")) if criteria else list(offers)


def info(offers: Sequence[Offer], location: str, descriptor: Any = None) -> Any:
    """A ``FlightInfo`` with an endpoint per partition. Its records are those at this moment; a log grows."""
    descriptor = descriptor or flight.FlightDescriptor.for_path(offers[0].topic, str(offers[0].partition))
    endpoints = [flight.FlightEndpoint(offer.ticket, [location]) for offer in offers]
    records = sum(offer.end - offer.start for offer in offers)
    offsets = {f"{offer.topic}/{offer.partition}": [offer.start, offer.end] for offer in offers}
    said = {"cluster": offers[0].cluster_id, "offsets": offsets}
    return flight.FlightInfo(
        offers[0].schema, descriptor, endpoints, records, -1, app_metadata=json.dumps(said).encode()
    )


@contextmanager
def told() -> Iterator[None]:
    """Errors leave as Flight's own kinds.

    Only these travel as their words alone: any other exception takes its traceback along, a ``KeyError``, which would
    be Flight's *not found*, included.
    """
    try:
        yield
    except (LogStopped, EnvironmentUnavailable) as error:
        raise flight.FlightUnavailableError(str(error)) from error
    except EventmeshError as error:
        raise flight.FlightServerError(str(error)) from error
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, flight.FlightError):
            raise
        raise flight.FlightInternalError(f"internal error: {type(error).__name__}: {error}") from error


class SchemaRefused(KeyError):
    """What ``get_schema`` raises: pyarrow's server passes Flight's own errors on from everywhere but there.

    Of any other exception it sends the traceback along, unless ``traceback`` fails to format it; this one it cannot.
    To a client it is Flight's *not found*.
    """

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("its traceback is nobody's business")


@contextmanager
def told_of_schema() -> Iterator[None]:
    """As :func:`told`, for ``get_schema``."""
    try:
        with told():
            yield
    except flight.FlightError as error:
        raise SchemaRefused(str(error)) from None


def rows(reader: pa.RecordBatchReader) -> Any:
    """What ``do_get`` answers with: the batches of ``reader``, whose errors are told, too, wherever they come."""

    def batches() -> Iterator[pa.RecordBatch]:
        with told():
            yield from reader

    return flight.GeneratorStream(reader.schema, batches())
