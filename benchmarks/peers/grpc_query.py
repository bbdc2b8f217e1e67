"""A remote query over gRPC: a unary call, bytes in and bytes out, to a server of grpcio's that holds a dict.

The question is the SKU and the answer two int64, so that nothing but gRPC itself is measured: less than any service's
own messages would cost. Neither more threads nor grpcio's asyncio server were faster for a look-up.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.backbone_loads import Answers, Barrier, check_price, priced, questions, read_clock, sku
from benchmarks.peers.servers import LOOPBACK, in_process, last_word, packages_missing, wait_for_end

NAME = "gRPC"
SERVICE, METHOD = "shop.Catalog", "PriceBySku"
#: version and list_price
ANSWER = struct.Struct("<qq")


def missing() -> str | None:
    """What is not installed, and how it is."""
    return packages_missing("grpc") and "grpcio is not installed (pip install grpcio)"


def _serve(keys: int, told: Any) -> None:
    import grpc

    prices = priced(keys)

    def price_by_sku(question: bytes, context: Any) -> bytes:
        return ANSWER.pack(*prices[question.decode()])

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(price_by_sku)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    told.send(f"{LOOPBACK}:{port}")
    wait_for_end(told)
    server.stop(None).wait()
    last_word(told)


@contextmanager
def server(folder: Path, keys: int) -> Iterator[str]:
    """A server that knows ``keys`` prices."""
    with in_process(_serve, keys) as served:
        yield served.address


def asking(address: str, keys: int, count: int, at_once: int, barrier: Barrier) -> Answers:
    """One after the other from this thread; many from an event loop, which was faster than threads."""
    barrier.wait()
    if at_once == 1:
        return _one_by_one(address, questions(keys, count))
    return asyncio.run(_many(address, questions(keys, count), at_once))


def _one_by_one(address: str, numbers: list[int]) -> Answers:
    import grpc

    answers = Answers()
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        for number in numbers:
            asked = read_clock()
            version, list_price = ANSWER.unpack(ask(sku(number).encode()))
            answers.add(asked, read_clock())
            check_price(number, version, list_price)
    return answers


async def _many(address: str, numbers: list[int], at_once: int) -> Answers:
    import grpc.aio

    answers, left = Answers(), iter(numbers)

    async def one_by_one(ask: Any) -> None:
        for number in left:
            asked = read_clock()
            version, list_price = ANSWER.unpack(await ask(sku(number).encode()))
            answers.add(asked, read_clock())
            check_price(number, version, list_price)

    async with grpc.aio.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        await asyncio.gather(*[one_by_one(ask) for _ in range(at_once)])
    return answers
