"""A service and an asker as they are in a mesh on Ray, with fixed addresses in place of Ray's directory."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

from benchmarks.backbone_loads import Answers, check_price, read_clock, sku
from eventmesh.mesh import Mesh
from eventmesh.runtime.ask_policy import Guards
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.limits import Counters, Limits
from eventmesh.runtime.pending import Pending
from eventmesh.runtime.process.directory import BROKER, FixedDirectory, Peer
from eventmesh.runtime.process.member import Member
from eventmesh.runtime.process.reactor import now
from eventmesh.runtime.process.service_member import ServiceMember

CATALOG: Peer = ("catalog", 0)
ASKER = "asker/0"


def catalog(mesh: Mesh, broker: str) -> ServiceMember:
    """The catalog of ``mesh``, whose broker is at that address."""
    directory = FixedDirectory(mesh.name, {BROKER: broker})
    return ServiceMember(mesh, *CATALOG, directory, rtt_ms=0.0, seed=0, limits=None, local=True)


class Asker(Member):
    """Asks as a service does, on the thread of its reactor: conversations that wait for their answers.

    A wrong answer ends it. It asks ``numbers`` once, in closed loop.
    """

    def __init__(self, mesh: Mesh, address: str, numbers: Iterable[int]) -> None:
        super().__init__(mesh, ASKER, FixedDirectory(mesh.name, {CATALOG: address}), 0.0)
        self.answers = Answers()
        self._left = iter(numbers)
        self._running = 0
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        counters = Counters()
        self._asks = Asks(
            ASKER, self.messages, {topic.owner: topic for topic in mesh.topics().values()}, {CATALOG[0]},
            Guards.plain(Limits(), counters), now, self.reactor.effects.append, counters,
        )  # fmt: skip
        self.reactor.start(self)

    def ask_all(self, at_once: int, patience_s: float) -> Answers:
        """Ask all of them, ``at_once`` on their way at a time; raises what went wrong."""

        def begin() -> None:
            self._running = at_once
            for _ in range(at_once):
                self._advance(self._one_by_one())

        self.reactor.post(begin)
        ended = self._ended.wait(patience_s)
        if self._failure is not None:
            raise self._failure
        assert ended, f"{len(self.answers)} answers came; {self.reactor.failure!r}"
        return self.answers

    async def _one_by_one(self) -> None:
        for number in self._left:
            asked = read_clock()
            [answer] = await self._asks.query("PriceBySku", [{"sku": sku(number)}])
            self.answers.add(asked, read_clock())
            check_price(number, answer["version"], answer["list_price"])

    def _advance(self, conversation: Coroutine[Pending, None, None]) -> None:
        try:
            conversation.send(None).then = partial(self._advance, conversation)
        except StopIteration:
            self._running -= 1
            if self._running == 0:
                self._ended.set()
        except BaseException as failure:
            self._failure = failure
            self._ended.set()

    def replied(self, reply: Any) -> None:
        """An answer arrived."""
        self._asks.replied(reply)

    def peer_lost(self, peer: Peer) -> None:
        """The catalog is gone; what was asked is asked again."""
        self._asks.lost(peer[0])

    def tick(self, now: int) -> None:
        """Time has passed."""
        self._asks.tick(now)

    def next_deadline(self) -> int | None:
        """When :meth:`tick` wants to be called next."""
        return self._asks.next_deadline()
