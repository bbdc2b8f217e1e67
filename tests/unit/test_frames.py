"""Given an ask whose batch lies about where its strings are, then it is refused before anybody reads them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from eventmesh.messages import Columns
from eventmesh.runtime.effects import AskMessage
from eventmesh.runtime.wire import frames
from eventmesh.shop.facts import MESSAGES

QUERY = "PriceBySku"
SKU = "sku-00000042"


def ask() -> bytes:
    question = MESSAGES[QUERY].question
    rows = Columns(pa.RecordBatch.from_arrays([pa.array([SKU, SKU], pa.string())], schema=question))
    return b"".join(frames.pack_asks([(0, AskMessage("orders/0:1", QUERY, ["a", "b"], rows, "orders/0"))], MESSAGES, 0))


def test_an_ask_comes_back_as_it_was_packed() -> None:
    header, bodies = frames.unpack(pa.py_buffer(ask()))
    [(partition, message)] = frames.unpack_asks(header, bodies, MESSAGES)
    assert (partition, message.name, message.sender) == (0, QUERY, "orders/0")
    assert message.rows["sku"] == [SKU, SKU]


def test_offsets_that_lie_are_refused() -> None:
    packed = ask()
    true = len(SKU).to_bytes(4, "little") + (2 * len(SKU)).to_bytes(4, "little")  # the ends of both strings
    assert packed.count(true) == 1
    lying = packed.replace(true, (1 << 30).to_bytes(4, "little") + (2 * len(SKU)).to_bytes(4, "little"))
    header, bodies = frames.unpack(pa.py_buffer(lying))
    with pytest.raises(pa.ArrowInvalid):
        frames.unpack_asks(header, bodies, MESSAGES)
