"""Given any frame, then it comes back as it was packed; given anything else, then what was found is said."""

from __future__ import annotations

import typing
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.errors import InputError
from eventmesh.runtime.wire import protocol
from eventmesh.runtime.wire.protocol import FrameHeader
from tests.unit.frame_story import APPEND, HEAD, UNREADABLE, raw

KINDS = FrameHeader.__subclasses__()
naturals = st.integers(0, 2**63 - 1)
failures = st.builds(protocol.Failure, name=st.text(), message=st.text())
asks = st.builds(
    protocol.Ask, id=st.text(), message=st.text(), ids=st.lists(st.text()), sender=st.text(), partition=naturals,
    rows=naturals,
)  # fmt: skip
replies = st.builds(
    protocol.Reply, ask=st.text(), message=st.text(), indexes=st.lists(naturals), final=st.booleans(),
    failure=st.none() | failures, rows=naturals,
)  # fmt: skip
homes = st.builds(protocol.Home, directory=st.text(), manifest=st.tuples(naturals, naturals))
FIELDS = {
    str: st.text(), protocol.Natural: naturals, protocol.Failure: failures, str | None: st.none() | st.text(),
    protocol.Home | None: st.none() | homes,
    list[str]: st.lists(st.text()), list[protocol.Ask]: st.lists(asks), list[protocol.Reply]: st.lists(replies),
}  # fmt: skip


def headers(kind: type[FrameHeader]) -> st.SearchStrategy[FrameHeader]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: FIELDS[hints[name]] for name in kind.__struct_fields__})


any_header = st.one_of([headers(kind) for kind in KINDS])


@given(any_header, st.lists(st.binary(max_size=40), max_size=5))
def test_a_frame_comes_back_as_it_was_packed(header: FrameHeader, bodies: list[bytes]) -> None:
    packed = b"".join(protocol.pack(header, bodies))
    assert len(packed) % 8 == 0
    again, parts = protocol.unpack(pa.py_buffer(packed))
    assert (type(again), again) == (type(header), header)
    assert [part.to_pybytes() for part in parts] == bodies


def test_every_kind_is_read_and_has_a_name_of_its_own() -> None:
    assert set(KINDS) == set(typing.get_args(protocol._AnyHeader))
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS) == 18


def test_bodies_are_not_copied() -> None:
    body = pa.py_buffer(bytes(1_000))
    parts = protocol.pack(protocol.Append("orders", 0, 0), [body])
    assert parts[1] is body
    frame = pa.py_buffer(b"".join(parts))
    _, [part] = protocol.unpack(frame)
    assert frame.address <= part.address < frame.address + frame.size
    assert (part.address - frame.address) % 8 == 0


@pytest.mark.parametrize(
    ("frame", "said"), [each for name, each in UNREADABLE.items() if name != "a first frame in the middle"]
)
def test_what_is_no_frame_of_this_version_is_an_error_that_says_what_was_found(frame: bytes, said: str) -> None:
    with pytest.raises(InputError) as told:
        protocol.unpack(pa.py_buffer(frame))
    assert said in str(told.value)
    assert len(str(told.value)) < 1_000


def test_a_frame_cut_anywhere_is_refused() -> None:
    whole = raw(APPEND, HEAD, b"x" * 13)
    protocol.unpack(pa.py_buffer(whole))
    for end in range(len(whole)):
        with pytest.raises(InputError):
            protocol.unpack(pa.py_buffer(whole[:end]))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_bytes_of_any_kind_are_a_frame_or_an_error_that_says_so(noise: bytes, at: int) -> None:
    whole = raw(APPEND, HEAD, b"x" * 13)
    for frame in (noise, whole[:at] + noise, whole[:at] + noise + whole[at + len(noise) :]):
        with suppress(InputError):
            protocol.unpack(pa.py_buffer(frame))


def test_a_failure_whose_words_are_no_text_is_told_all_the_same() -> None:
    failure = protocol.Failure.of(InputError("file-\udcff.csv"))
    assert "file-" in failure.message
    protocol.pack(protocol.Refused(failure))
