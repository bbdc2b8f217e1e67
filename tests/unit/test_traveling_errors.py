"""Given any error of the mesh, when it is sent to another process, then the one that arrives equals it."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmesh import errors
from eventmesh.errors import (
    KINDS,
    EnvironmentUnavailable,
    EventmeshError,
    LogTruncated,
    MayHaveHappened,
    OffsetMismatch,
)
from eventmesh.runtime.wire import protocol

VALUES: dict[Any, st.SearchStrategy[Any]] = {str: st.text(), int: st.integers(-(2**63), 2**63 - 1)}
json_values = st.recursive(
    st.none() | st.booleans() | VALUES[int] | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text("abcdefghij_", min_size=1).filter(lambda name: not hasattr(EventmeshError, name))


def made(kind: type[EventmeshError]) -> st.SearchStrategy[EventmeshError]:
    """Errors of this class, of any arguments."""
    if "__init__" not in vars(kind):
        return st.builds(kind, st.text())
    hints = typing.get_type_hints(kind.__init__)
    parameters = list(inspect.signature(kind).parameters)
    return st.builds(kind, **{name: VALUES[hints[name]] for name in parameters})


def sent(error: EventmeshError) -> EventmeshError:
    """What arrives on the other side."""
    frame = b"".join(protocol.pack(protocol.AppendFailed(0, 1, protocol.Failure.of(error), 0)))
    header, _ = protocol.unpack(pa.py_buffer(frame))
    assert isinstance(header, protocol.AppendFailed)
    return header.failure.error()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@settings(max_examples=25)
@given(data=st.data())
def test_an_error_arrives_as_it_left(kind: type[EventmeshError], data: st.DataObject) -> None:
    error = data.draw(made(kind))
    vars(error).update(data.draw(st.dictionaries(names, json_values, max_size=3)))
    arrived = sent(error)
    assert (type(arrived), str(arrived), vars(arrived)) == (kind, str(error), vars(error))
    assert (arrived.definite, arrived.exit_code) == (error.definite, error.exit_code)


def test_the_registry_is_the_tree() -> None:
    drawn = {word for line in str(errors.__doc__).splitlines() for word in line.split() if word in vars(errors)}
    assert set(KINDS) == drawn
    assert all(vars(errors)[name] is kind for name, kind in KINDS.items())


def test_the_facts_that_a_reader_needs_are_there() -> None:
    mismatch, truncated = sent(OffsetMismatch("orders/0", 3, 4)), sent(LogTruncated("orders/0", 5, 4, 9))
    assert isinstance(mismatch, OffsetMismatch)
    assert mismatch.end == 4
    assert isinstance(truncated, LogTruncated)
    assert truncated.lost_to == 9


@pytest.mark.parametrize("name", ["Unheard", "EXIT_CODES", "Mapping", "", "ValueError"])
def test_a_name_that_is_no_error_here_may_have_happened(name: str) -> None:
    error = protocol.Failure(name, "who knows", {"end": 3}).error()
    assert type(error) is MayHaveHappened
    assert (str(error), vars(error)) == ("who knows", {})


def test_an_error_of_a_part_that_the_other_side_need_not_have_may_have_happened() -> None:
    class ProcessDown(EnvironmentUnavailable):
        """As a runtime may have one of its own."""

    assert type(sent(ProcessDown("it is being started again"))) is MayHaveHappened


def test_nobody_can_say_that_what_may_have_happened_did_not() -> None:
    error = protocol.Failure("PeerLost", "gone", {"definite": True, "exit_code": 0, "args": [], "peer": "a"}).error()
    assert (error.definite, error.exit_code, vars(error)) == (False, 5, {"peer": "a"})


@pytest.mark.parametrize("fact", [object(), (1, 2), 1 << 64, float("nan"), b"bytes", {1: 2}, "\udcff", [set()]])
def test_a_fact_that_json_would_change_stays_behind(fact: object) -> None:
    error = OffsetMismatch("orders/0", 3, 4)
    vars(error)["more"] = fact
    assert vars(sent(error)) == {"partition": "orders/0", "expected": 3, "end": 4}
