"""A small shop's history, written by hand: who said what, on which cause. The words of the audit's stories.

Every fact goes through a real log. ``tweak`` and ``skip`` spoil the facts to come, by their type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from eventmesh.audit.audit import Audit, CheckResult, audit
from eventmesh.audit.evidence import Evidence
from eventmesh.history import CALLERS, History, StateDump, ViewDump
from eventmesh.log.batch import Header, LogBatch
from eventmesh.log.partition import control_batch
from eventmesh.log.storage import MemoryStorage
from eventmesh.log.store import Durability, Log, LogReader
from eventmesh.log.topic import partition_for
from eventmesh.mesh import Mesh, parse
from eventmesh.messages import Columns, encode_rows, fingerprint
from eventmesh.progress import Progress, position_name
from eventmesh.states import digest
from eventmesh.views import View

NOON = 43_200_000_000
Lines = list[tuple[str, int, int]]


@cache
def described(wiring: str) -> dict[str, Any]:
    """What the file of one of the shop's meshes says."""
    text = (Path(__file__).parents[2] / "configs" / "meshes" / f"{wiring}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def a_mesh(wiring: str, partitions: int, topics: Mapping[str, Mapping[str, Any]]) -> Mesh:
    """One of the shop's meshes with this many partitions in every topic, and these settings besides."""
    document = deepcopy(described(wiring))
    for topic in document["topics"].values():
        topic["partitions"] = partitions
    for name, settings in topics.items():
        document["topics"][name] |= settings
    return parse(document)


@dataclass(frozen=True)
class Said:
    """A fact that stands in the log; also what causes another."""

    id: str
    cause: str
    time: int
    correlation: str | None
    position: tuple[str, int] | None = None


def command(name: str, story: str | None = None) -> Said:
    """A command of this id, as a cause."""
    return Said(name, name, 0, story)


class Writer:
    """The incarnation of an owner that holds one partition."""

    def __init__(self, log: Log, topic: str, partition: int, owner: str, incarnation: str) -> None:
        grant = log.grant(topic, partition, owner, incarnation)
        self.epoch, self.end, self.append, self.incarnation = grant.epoch, grant.end, 0, incarnation


class Story:
    """A run of the shop, told fact by fact."""

    def __init__(
        self, wiring: str = "views", partitions: int = 1, topics: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.mesh = a_mesh(wiring, partitions, topics or {})
        self.topics = self.mesh.topics()
        self.storage = MemoryStorage()
        self.now = NOON
        self.log = Log.open(
            self.storage,
            self.topics,
            durability=Durability.memory,
            cluster_id="test",
            node="test",
            clock=lambda: self.now,
        )
        self.writers: dict[tuple[str, int], Writer] = {}
        self.progress: dict[tuple[str, int], Progress] = {}
        self.ordinals: dict[tuple[str, str], int] = {}
        self.levels: dict[str, tuple[int, int]] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.prices: dict[str, int] = {}
        self.calls: list[dict[str, Any]] = []
        self.tweak: dict[str, dict[str, Any]] = {}
        self.skip: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.together = False
        self.drained = True
        self.poison: bool | None = False
        self.spoiled: list[ViewDump] | None = None
        self.states: list[StateDump] = []
        self.shown: LogReader | None = None  # what the audit is shown instead of the log

    # --- the log ----------------------------------------------------------------------------------

    def writer(self, topic: str, partition: int = 0) -> Writer:
        if (topic, partition) not in self.writers:
            self.restart(topic, partition)
        return self.writers[topic, partition]

    def restart(self, topic: str, partition: int = 0) -> None:
        """The owner starts again: a new incarnation, a new epoch."""
        incarnation = f"{self.topics[topic].owner}.{len(self.log.read(topic, partition, 0, 1 << 30))}"
        owner = self.topics[topic].owner
        self.writers[topic, partition] = Writer(self.log, topic, partition, owner, incarnation)

    def say(self, topic: str, kind: str, cause: Said, *, partition: int | None = None, **payload: Any) -> Said | None:
        """One fact in one append; None where it is left out."""
        if kind in self.skip:
            return None
        spoiled = self.tweak.get(kind, {})
        header_changes = {name: spoiled[name] for name in ("progress",) if name in spoiled}
        described = self.topics[topic]
        key = str(payload.get(described.key))
        number = partition_for(key, described.partitions) if partition is None else partition
        writer = self.writer(topic, number)
        self.now += 10
        count = self.ordinals.get((topic, cause.cause), 0)
        self.ordinals[topic, cause.cause] = count + 1
        row = {
            "id": f"{cause.cause}#{count}",
            "source": described.owner,
            "type": kind,
            "subject": key,
            "time": self.now,
            "dataschema": f"{topic}/1",
            "correlationid": payload.get("order_id", cause.correlation),
            "causationid": cause.id,
            "partitionkey": key,
            "sequence": writer.end + len(self.rows),
            **payload,
            **{name: value for name, value in spoiled.items() if name not in header_changes},
        }
        name = position_name(topic, number)
        place = (name, row["sequence"])
        said = Said(str(row["id"]), f"{name}/{place[1]}", self.now, payload.get("order_id"), place)
        self.rows.append(row)
        if not self.together:
            self._append_rows(topic, number, cause, header_changes)
        return said

    def _append_rows(self, topic: str, number: int, cause: Said, changes: Mapping[str, Any]) -> None:
        rows, self.rows = self.rows, []
        described, writer = self.topics[topic], self.writer(topic, number)
        progress = changes.get("progress", self._progress(topic, number, cause))
        header = Header(
            "facts",
            writer.end,
            len(rows),
            writer.epoch,
            writer.append,
            described.owner,
            writer.incarnation,
            self.now,
            progress,
        )
        self._append(topic, number, LogBatch.encode(header, encode_rows(described.schema, rows)))

    @contextmanager
    def one_append(self, cause: Said) -> Iterator[None]:
        """All facts of stock said inside go into one append, as those of one decision do."""
        self.together = True
        yield
        self.together = False
        if self.rows:
            self._append_rows("stock", 0, cause, {})

    def _append(self, topic: str, partition: int, entry: LogBatch) -> None:
        writer = self.writer(topic, partition)
        writer.end = self.log.append(topic, partition, entry)
        writer.append += 1

    def _progress(self, topic: str, partition: int, cause: Said) -> dict[str, Any]:
        progress = self.progress.setdefault((topic, partition), Progress())
        if cause.position is not None:
            name, offset = cause.position
            progress.done(name, progress.next.get(name, 0), offset + 1)
        service = self.mesh.services.get(self.topics[topic].owner)
        views = {
            position_name(read, number): self.log.end(read, number)
            for topics in (service.views.values() if service else ())
            for read in topics
            for number in range(self.topics[read].partitions)
        }
        return {**progress.to_json(), **({"views": views} if views else {})}

    def progressed(self, topic: str, progress: Mapping[str, Any]) -> None:
        """A record of a vector without a fact."""
        writer = self.writer(topic)
        header = Header(
            "progressed",
            writer.end,
            1,
            writer.epoch,
            writer.append,
            self.topics[topic].owner,
            writer.incarnation,
            self.now,
            progress,
        )
        self._append(topic, 0, control_batch(self.topics[topic], 0, header))

    # --- the shop ---------------------------------------------------------------------------------

    def seed(self, stock: Mapping[str, int], price: int = 100) -> None:
        """Customers, prices and the first deliveries."""
        self.say("customers", "CustomerRegistered", command("seed:c1"), customer_id="c1", name="Ann", country="Wales")
        self.versions["customers", "c1"] = self.writer("customers").end - 1
        for sku, quantity in stock.items():
            said = self.say("prices", "PriceListed", command(f"seed:{sku}"), sku=sku, list_price=price)
            assert said is not None
            assert said.position is not None
            self.prices[sku], self.versions["prices", sku] = price, said.position[1]
            self.restock(sku, quantity, f"seed:restock:{sku}")

    def restock(self, sku: str, quantity: int, name: str) -> None:
        self.move("StockRestocked", command(name), sku, quantity, on_hand=quantity, reason=name)

    def move(
        self, kind: str, cause: Said, sku: str, quantity: int, *, on_hand: int = 0, reserved: int = 0, **payload: Any
    ) -> Said | None:
        """One fact about a SKU, with the level that follows."""
        level = self.levels.get(sku, (0, 0))
        after = (level[0] + on_hand, level[1] + reserved)
        said = self.say(
            "stock", kind, cause, sku=sku, quantity=quantity, on_hand=after[0], reserved=after[1], **payload
        )
        if said is not None and said.position is not None:
            self.levels[sku], self.versions["stock", sku] = after, said.position[1]
        return said

    def call(self, command: str, order_id: str, outcome: str | None, **more: Any) -> None:
        """A caller asks, hears that it was accepted, and then ``outcome``; ``more`` are other columns of its record."""
        self.now += 1
        self.calls.append(
            {
                "request": len(self.calls),
                "command": command,
                "key": order_id,
                "sent_at": self.now,
                "accepted_at": self.now + 5,
                "outcome": outcome,
                "repeated": False,
                **more,
            }
        )

    def request(self, order_id: str, lines: Lines, outcome: str | None = "confirmed") -> Said | None:
        """A caller places an order, and is told ``outcome``."""
        self.call("PlaceOrder", order_id, outcome, content=fingerprint("c1", lines))
        cause = command(f"load:PlaceOrder:{order_id}", order_id)
        return self.say(
            "order-requests",
            "OrderRequested",
            cause,
            order_id=order_id,
            customer_id="c1",
            lines=lines,
            amount=sum(quantity * price for _, quantity, price in lines),
        )

    def validate(self, order_id: str, lines: Lines, cause: Said) -> Said | None:
        joined = [
            (
                self.prices[sku],
                self.versions["prices", sku],
                self.levels[sku][0] - self.levels[sku][1],
                self.versions["stock", sku],
            )
            for sku, _, _ in lines
        ]
        return self.say(
            "orders",
            "OrderValidated",
            cause,
            order_id=order_id,
            customer_id="c1",
            lines=lines,
            amount=sum(quantity * price for _, quantity, price in lines),
            customer_country="Wales",
            customer_version=self.versions["customers", "c1"],
            joined_lines=joined,
        )

    def reserve(self, order_id: str, lines: Lines, cause: Said, short: Iterable[int] = ()) -> Said | None:
        said = None
        with self.one_append(cause):
            for number, (sku, quantity, _) in enumerate(lines):
                kind, reserved = ("StockShort", 0) if number in short else ("StockReserved", quantity)
                said = self.move(kind, cause, sku, quantity, reserved=reserved, order_id=order_id, line_number=number)
        return said

    def settle(self, order_id: str, lines: Lines, cause: Said, kind: str) -> None:
        """Stock released or shipped, line by line."""
        with self.one_append(cause):
            for number, (sku, quantity, _) in enumerate(lines):
                out = -quantity if kind == "StockShipped" else 0
                self.move(
                    kind, cause, sku, quantity, on_hand=out, reserved=-quantity, order_id=order_id, line_number=number
                )

    def until_reserved(self, order_id: str, lines: Lines, outcome: str | None = "confirmed") -> Said:
        requested = self.request(order_id, lines, outcome) or command("lost")
        validated = self.validate(order_id, lines, requested) or requested
        stock = self.reserve(order_id, lines, validated) or validated
        amount = sum(quantity * price for _, quantity, price in lines)
        return self.say("orders", "OrderReserved", stock, order_id=order_id, amount=amount) or stock

    def until_confirmed(self, order_id: str, lines: Lines) -> Said:
        reserved = self.until_reserved(order_id, lines)
        amount = sum(quantity * price for _, quantity, price in lines)
        paid = self.say("payments", "PaymentCaptured", reserved, order_id=order_id, amount=amount) or reserved
        return self.say("orders", "OrderConfirmed", paid, order_id=order_id) or paid

    def shipped(self, order_id: str, lines: Lines) -> None:
        """An order that goes well."""
        confirmed = self.until_confirmed(order_id, lines)
        dispatched = self.say("shipments", "ShipmentDispatched", confirmed, order_id=order_id) or confirmed
        self.settle(order_id, lines, dispatched, "StockShipped")
        self.say("orders", "OrderShipped", dispatched, order_id=order_id)

    def declined(self, order_id: str, lines: Lines) -> None:
        """An order whose payment is declined."""
        reserved = self.until_reserved(order_id, lines, "rejected")
        declined = self.say("payments", "PaymentDeclined", reserved, order_id=order_id, amount=1) or reserved
        rejected = self.say("orders", "OrderRejected", declined, order_id=order_id, reason="payment declined")
        self.settle(order_id, lines, rejected or declined, "StockReleased")

    def short(self, order_id: str, lines: Lines) -> None:
        """An order of one line that inventory finds short after it was validated."""
        requested = self.request(order_id, lines, "rejected") or command("lost")
        validated = self.validate(order_id, lines, requested) or requested
        short = self.reserve(order_id, lines, validated, short=[0]) or validated
        rejected = self.say("orders", "OrderRejected", short, order_id=order_id, reason="out of stock: s1") or short
        self.move("StockReleased", rejected, lines[0][0], 0, order_id=order_id, line_number=0)

    def cancel(self, order_id: str, outcome: str | None = "recorded") -> Said:
        """A caller wants an order cancelled."""
        self.call("CancelOrder", order_id, outcome)
        cause = command(f"load:CancelOrder:{order_id}", order_id)
        return self.say("order-requests", "CancellationRequested", cause, order_id=order_id) or command("lost")

    def cancelled(self, order_id: str, lines: Lines, outcome: str = "recorded") -> None:
        """A confirmed order that is cancelled before it is shipped."""
        self.until_confirmed(order_id, lines)
        asked = self.cancel(order_id, outcome)
        cancelling = self.say("orders", "OrderCancelling", asked, order_id=order_id) or asked
        refused = self.say("shipments", "ShipmentRefused", cancelling, order_id=order_id) or cancelling
        cancelled = self.say("orders", "OrderCancelled", refused, order_id=order_id) or refused
        self.settle(order_id, lines, cancelled, "StockReleased")
        amount = sum(quantity * price for _, quantity, price in lines)
        self.say("payments", "PaymentRefunded", cancelled, order_id=order_id, amount=amount)

    def refuse(self, cause: Said, reason: str, **changes: Any) -> None:
        """Orders has no answer to an input, or to a command."""
        position = "" if cause.position is None else f"{cause.position[0]}/{cause.position[1]}"
        self.say("orders", "InputRefused", cause, **{"position": position, "reason": reason, **changes})

    # --- the audit --------------------------------------------------------------------------------

    def views(self) -> list[ViewDump]:
        """Every view as it would stand now."""
        if self.spoiled is not None:
            return self.spoiled
        dumps = []
        for service, section in self.mesh.services.items():
            for name in section.views:
                view = self.mesh.view(service, name)
                self._fold(view)
                dumps.append(ViewDump(service, 0, name, dict(view.next), view.rows()))
        return dumps

    def state(self, service: str) -> StateDump:
        """The state of a service in its partition 0, as it stands now."""
        topic = self.mesh.topic_of(service)
        decider = self.mesh.folding(service, 0)
        state = decider.initial()
        for entry in self.log.batches(topic, 0):
            if entry.header.kind == "facts":
                decider.evolve(state, entry.columns)
        return StateDump(service, 0, self.log.watermark(topic, 0), digest(state))

    def _fold(self, view: View) -> None:
        for topic in view.topics:
            for partition in range(self.topics[topic].partitions):
                for entry in self.log.batches(topic, partition):
                    if entry.header.kind == "facts":
                        view.apply(topic, partition, entry.header.base, Columns(entry.batch))
                    else:
                        view.skip(topic, partition, entry.header.end)

    def history(self) -> History:
        rows = [{name: call.get(name) for name in CALLERS.names} for call in self.calls]
        return History(pa.Table.from_pylist(rows, CALLERS), self.views(), self.drained, self.poison, self.states)

    def evidence(self) -> Evidence:
        return Evidence(self.mesh, self.log, self.history())

    def audit(self, reader: LogReader | None = None) -> Audit:
        return audit(self.mesh, reader or self.shown or self.log, self.history())

    def check(self, name: str, reader: LogReader | None = None) -> CheckResult:
        return audit(self.mesh, reader or self.shown or self.log, self.history(), only={name}).checks[name]


class Forged(LogReader):
    """A log that says what no log would: the batches of one partition, replaced."""

    def __init__(
        self, story: Story, topic: str, entries: list[LogBatch], *, start: int = 0, end: int | None = None
    ) -> None:
        super().__init__(story.storage, story.topics)
        self._forged, self._entries, self._start = (topic, 0), entries, start
        self._end = entries[-1].header.end if end is None else end

    def batches(self, topic: str, partition: int) -> Any:
        return iter(self._entries) if (topic, partition) == self._forged else super().batches(topic, partition)

    def start(self, topic: str, partition: int) -> int:
        return self._start if (topic, partition) == self._forged else super().start(topic, partition)

    def watermark(self, topic: str, partition: int) -> int:
        if (topic, partition) == self._forged:
            return self._end
        return super().watermark(topic, partition)


def entries_of(story: Story, topic: str) -> list[LogBatch]:
    """The batches of partition 0."""
    return list(story.log.batches(topic, 0))


def with_header(entry: LogBatch, **changes: Any) -> LogBatch:
    """The same rows under another header."""
    return LogBatch.encode(replace(entry.header, **changes), entry.batch)


LINES: Lines = [("s1", 2, 150), ("s2", 1, 90), ("s1", 1, 150)]


def a_day() -> Story:
    """A run with every kind of ending, a restart in between and a vector without a fact: nothing is wrong with it."""
    story = Story()
    story.seed({"s1": 50, "s2": 50})
    story.shipped("o1", LINES)
    story.declined("o2", LINES)
    for topic in ("orders", "stock"):
        story.restart(topic)
    story.short("o3", [("s1", 900, 10)])
    story.cancelled("o4", LINES)
    story.progressed("shipments", story._progress("shipments", 0, command("nothing")))
    story.shipped("o5", LINES)
    story.states = [story.state(service) for service in story.mesh.services]
    return story
