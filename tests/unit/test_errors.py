"""Given any error of the mesh, then copying and pickling keep its facts, and its exit code has a meaning."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from eventmesh.errors import (
    EXIT_CODES,
    AskTimeout,
    ConfigurationError,
    CorruptSegment,
    EventmeshError,
    LogTruncated,
    NotFound,
    OffsetMismatch,
    OffsetOutOfRange,
)


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("unknown key 'a'", file="mesh.yaml", path="topics", hint="Allowed: b"),
        CorruptSegment("orders/0/0.arrow", 7, 4_096, "crc32c is 1"),
        LogTruncated("orders/0", 5, 4, 9),
        OffsetMismatch("orders/0", 3, 4),
        OffsetOutOfRange("orders/0", 9, 0, 4),
        NotFound("no order"),
        AskTimeout("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_copied_with_its_facts(error: EventmeshError) -> None:
    for again in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


def kinds(base: type[EventmeshError]) -> Iterator[type[EventmeshError]]:
    yield base
    for each in base.__subclasses__():
        yield from kinds(each)


def test_every_exit_code_has_a_meaning() -> None:
    assert {kind.exit_code for kind in kinds(EventmeshError)} <= set(EXIT_CODES)
    # A user can mend a name or a position; a damaged log is a verdict; neither is an internal error.
    assert [NotFound.exit_code, OffsetOutOfRange.exit_code, CorruptSegment.exit_code] == [2, 2, 3]
