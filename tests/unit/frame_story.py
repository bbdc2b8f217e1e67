"""Frames as nobody of this version would send them, and what is said to each."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from eventmesh.runtime.wire import protocol
from tests.unit.log_story import facts

QUERY = "PriceBySku"


def raw(
    head: bytes | dict[str, object], *bodies: bytes, version: int = protocol.VERSION, sizes: Sequence[int] | None = None
) -> bytes:
    """A frame of any header, version and sizes."""
    text = head if isinstance(head, bytes) else msgspec.json.encode(head)
    named = [len(body) for body in bodies] if sizes is None else sizes
    packed = struct.pack("<2sHII", b"EM", version, len(named), len(text)) + struct.pack(f"<{len(named)}I", *named)
    packed += text
    packed += bytes(-len(packed) % 8)
    return packed + b"".join(body + bytes(-len(body) % 8) for body in bodies)


APPEND: dict[str, object] = {"kind": "append", "topic": "orders", "partition": 0, "sent_at": 0}
HEAD = facts(1, ["a"]).head
ASKED: dict[str, object] = {
    "kind": "asks", "asks": [["orders/0:1", QUERY, [], "orders/0", 0, 1]], "messages": [QUERY], "sent_at": 0,
}  # fmt: skip
ANSWERED: dict[str, object] = {
    "kind": "replies", "replies": [["orders/0:1", QUERY, [0], True, None, 1]], "messages": [QUERY], "sent_at": 0,
}  # fmt: skip
#: What no receiver of frames can take, whatever the stream is for, with a part of what is said to it.
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no frame at all": (b"GET / HTTP/1.1\r\n\r\n", "it begins with b'GE'"),
    "nothing but a mark": (b"EM", "it ends after 2 bytes"),
    "a header longer than the frame": (struct.pack("<2sHII", b"EM", 1, 0, 1 << 31) + b"{}", f"{1 << 31} bytes"),
    "more bodies than bytes": (struct.pack("<2sHII", b"EM", 1, 0xFFFFFFFF, 2) + b"{}", "it names 4294967295 bodies"),
    "a header that is no JSON": (raw(b"oops"), "b'oops'"),
    "a header that is no text": (raw(b'{"kind": "\xff"}'), 'b\'{"kind": '),
    "a header that nests without end": (raw(b'{"kind": "hello", "x": ' + b"[" * 200_000), "a kind and fields"),
    "a header that is no object": (raw(b"[]"), "got `array`"),
    "no kind": (raw({"topic": "orders"}), "missing required field `kind`"),
    "an unknown kind": (raw({"kind": "gossip"}), "Invalid value 'gossip'"),
    "another version": (raw(APPEND, version=7), "version 7: expected version 1"),
    "a field that is missing": (raw({**APPEND, "topic": None}), "Expected `str`, got `null`"),
    "a text where a number belongs": (raw({**APPEND, "partition": "0"}), "Expected `int`, got `str`"),
    "a partition below zero": (raw({**APPEND, "partition": -1}), ">= 0"),
    "an offset that is too large": (raw({"kind": "subscribe", "name": "orders/0", "offset": 1 << 80}), "offset"),
    "bodies that are not there": (raw(APPEND, HEAD, b"x" * 64)[:-8], "do not make it up"),
    "sizes that are too small": (raw(APPEND, HEAD, b"x" * 64, sizes=[len(HEAD), 8]), "do not make it up"),
    "sizes that are too large": (raw(APPEND, HEAD, b"x" * 64, sizes=[len(HEAD), 1 << 20]), "do not make it up"),
    "a first frame in the middle": (raw({"kind": "hello", "purpose": "talk"}), "a frame of the kind hello"),
}
