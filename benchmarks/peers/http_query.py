"""A remote query over HTTP: httpx, on connections that are kept alive, to FastAPI on uvicorn with uvloop and httptools.

Each that asks has a client of its own: one AsyncClient looks through its whole pool for every request, and at 32 on
their way was slower by far. One at a time, the plain Client was faster than the asynchronous one.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmarks.backbone_loads import Answers, Barrier, check_price, priced, questions, read_clock, sku
from benchmarks.peers.servers import LOOPBACK, in_process, last_word, packages_missing, wait_for_end

NAME = "HTTP"


class Price(BaseModel):
    """The answer."""

    version: int
    list_price: int | None


def missing() -> str | None:
    """What is not installed, and how it is."""
    return packages_missing("httpx", "fastapi", "uvicorn", "uvloop", "httptools")


def _serve(keys: int, told: Any) -> None:
    import uvicorn
    from fastapi import FastAPI

    prices, application = priced(keys), FastAPI()

    @application.get("/prices/{sku}")
    async def price_by_sku(sku: str) -> Price:
        version, list_price = prices[sku]
        return Price(version=version, list_price=list_price)

    settings = uvicorn.Config(
        application, loop="uvloop", http="httptools", ws="none", lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(settings)

    def end() -> None:
        wait_for_end(told)
        server.should_exit = True

    listening = socket.create_server((LOOPBACK, 0), backlog=settings.backlog)
    told.send(f"http://{LOOPBACK}:{listening.getsockname()[1]}")
    threading.Thread(target=end, daemon=True).start()
    server.run(sockets=[listening])
    last_word(told)


@contextmanager
def server(folder: Path, keys: int) -> Iterator[str]:
    """A server that knows ``keys`` prices."""
    with in_process(_serve, keys) as served:
        yield served.address


def asking(address: str, keys: int, count: int, at_once: int, barrier: Barrier) -> Answers:
    """One after the other from each of ``at_once`` threads."""
    import httpx

    answers, left = Answers(), iter(questions(keys, count))

    def one_by_one(client: Any) -> None:
        for number in left:  # the threads share it: a list's iterator gives each number out once
            asked = read_clock()
            answer = client.get(f"/prices/{sku(number)}").json()
            answers.add(asked, read_clock())
            check_price(number, answer["version"], answer["list_price"])

    with ExitStack() as clients:
        # Neither certificates nor a proxy are looked for.
        made = [httpx.Client(base_url=address, verify=False, trust_env=False) for _ in range(at_once)]
        for client in made:
            clients.enter_context(client)
        barrier.wait()
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(one_by_one, made))
    return answers
