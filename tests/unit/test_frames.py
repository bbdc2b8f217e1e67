"""Given an ask whose batch lies about where its strings are, then it is refused before anybody reads them."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest

from eventmesh.errors import InputError
from eventmesh.messages import Columns
from eventmesh.runtime.effects import AskMessage
from eventmesh.runtime.wire import frames, protocol
from eventmesh.shop.facts import DECLARED
from tests.unit.frame_story import ANSWERED, ASKED, QUERY, raw
from tests.unit.log_story import ORDERS, facts

SKU = "sku-00000042"


def ask() -> bytes:
    question = DECLARED.messages[QUERY].question
    rows = Columns(pa.RecordBatch.from_arrays([pa.array([SKU, SKU], pa.string())], schema=question))
    return b"".join(
        frames.pack_asks([(0, AskMessage("orders/0:1", QUERY, ["a", "b"], rows, "orders/0"))], DECLARED.messages, 0)
    )


def unpack_asks(frame: bytes) -> list[tuple[int, AskMessage]]:
    header, bodies = protocol.unpack(pa.py_buffer(frame))
    assert isinstance(header, protocol.Asks)
    return frames.unpack_asks(header, bodies, DECLARED.messages)


def test_an_ask_comes_back_as_it_was_packed() -> None:
    [(partition, message)] = unpack_asks(ask())
    assert (partition, message.name, message.sender) == (0, QUERY, "orders/0")
    assert message.rows["sku"] == [SKU, SKU]


def test_offsets_that_lie_are_refused() -> None:
    packed = ask()
    true = len(SKU).to_bytes(4, "little") + (2 * len(SKU)).to_bytes(4, "little")  # the ends of both strings
    assert packed.count(true) == 1
    lying = packed.replace(true, (1 << 30).to_bytes(4, "little") + (2 * len(SKU)).to_bytes(4, "little"))
    with pytest.raises(pa.ArrowInvalid):
        unpack_asks(lying)


def body() -> bytes:
    _, [packed] = protocol.unpack(pa.py_buffer(ask()))
    return packed.to_pybytes()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({**ASKED, "asks": [["a:1", QUERY, [], "a", 0, 3]]}, f"3 rows of '{QUERY}' are named: the body has 2"),
        ({**ASKED, "asks": [["a:1", "StockBySku", [], "a", 0, 1]]}, "expected one of \\['PriceBySku'\\]"),
        ({**ASKED, "messages": ["Gossip"]}, "nobody knows a message 'Gossip'; there are"),
    ],
)
def test_an_ask_for_rows_that_did_not_come_is_refused(header: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        unpack_asks(raw(header, body()))


def test_an_answer_that_nobody_knows_is_refused() -> None:
    header, bodies = protocol.unpack(pa.py_buffer(raw({**ANSWERED, "messages": ["Gossip"]}, body())))
    with pytest.raises(InputError, match="nobody knows a message 'Gossip'"):
        frames.unpack_replies(msgspec.convert(header, protocol.Replies), bodies, DECLARED.messages)


def test_batches_without_their_bodies_or_of_a_topic_that_nobody_asked_for_are_refused() -> None:
    entry = facts(1, ["a"])
    bodies = [pa.py_buffer(entry.head), entry.message]
    entries = protocol.Entries(["orders/0"], 0)
    assert frames.unpack_entries(entries, bodies, {"orders": ORDERS})[0][:2] == ("orders", 0)
    with pytest.raises(InputError, match="1 batches with 1 bodies"):
        frames.unpack_entries(entries, bodies[:1], {"orders": ORDERS})
    with pytest.raises(InputError, match="a batch of orders/0: expected one of the topics"):
        frames.unpack_entries(entries, bodies, {"payments": ORDERS})
    with pytest.raises(InputError, match="an append with 1 bodies"):
        frames.unpack_append(bodies[:1], ORDERS.schema)
