"""The code with one of its rules switched off, and one seed under which each mutant is caught.

A mutant names the rule it breaks (docs/promises.md has the table), how to break it, and a scenario. The scenario,
run from the seed, is judged by the names of what speaks against it: checks of the audit, or an error's class.
Without the mutant nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest

from eventmesh.errors import Throttled
from eventmesh.lab.simulated_run import Crashes
from eventmesh.log import store
from eventmesh.log.batch import LogBatch
from eventmesh.log.partition import Partition
from eventmesh.log.partition_files import PartitionFiles
from eventmesh.log.simulated_storage import SimulatedStorage
from eventmesh.log.store import Grant, Log
from eventmesh.mesh import Mesh
from eventmesh.progress import Progress, split_position
from eventmesh.runtime import instance
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.broker import WhenSynced, WhenWritten
from eventmesh.runtime.caller import Caller
from eventmesh.runtime.conversation import Conversation, Conversations
from eventmesh.runtime.decider import Decider
from eventmesh.runtime.effects import AskMessage, ReplyMessage, SendReply
from eventmesh.runtime.incoming import Incoming
from eventmesh.runtime.limits import Limits
from eventmesh.runtime.outcome import RuleOutcome
from eventmesh.runtime.partition_state import PartitionState
from eventmesh.runtime.release import Release
from eventmesh.runtime.simulated.network import Network, Speeds
from eventmesh.runtime.snapshots import Floors, Snapshot
from eventmesh.runtime.task import Task
from eventmesh.runtime.timers import Timers
from eventmesh.shop import WIRINGS
from eventmesh.shop.facts import OrderCancelling, OrderRejected, Settled
from eventmesh.shop.gateway import Gateway
from eventmesh.shop.inventory import Inventory
from eventmesh.shop.memory import Asked
from eventmesh.shop.orders import Orders
from eventmesh.shop.payments import Payments
from eventmesh.shop.wirings import request
from eventmesh.shop.wirings.asking import validate_by_asking
from eventmesh.views import View
from tests.simulation import ask_policy_story, log_scenarios, standing_story, timer_story, version_story
from tests.simulation.scenario import IMPATIENT, SLOW_NETWORK, DiskFaults, Scenario, jitter, slow_streams, upheaval

Patch = pytest.MonkeyPatch
Judge = Callable[[int], set[str]]


@dataclass(frozen=True)
class Mutant:
    """``rule`` counts as in docs/promises.md, or is ``gallery`` for a known defect of others' implementations."""

    rule: str
    what: str
    apply: Callable[[Patch], None]
    judge: Judge
    seed: int
    caught_by: str


MUTANTS: dict[str, Mutant] = {}


def mutant(
    rule: str, what: str, judge: Judge, *, seed: int, caught_by: str
) -> Callable[[Callable[[Patch], None]], None]:
    """Register the function below as a mutant under its own name."""

    def register(apply: Callable[[Patch], None]) -> None:
        MUTANTS[apply.__name__] = Mutant(rule, what, apply, judge, seed, caught_by)

    return register


DEATHS = Scenario(crashes=Crashes(12, broker_share=0.15))
SLOW_DEATHS = Scenario(crashes=Crashes(20, broker_share=0.05), rate=1_000.0, speeds=SLOW_NETWORK)
#: The disk has no room for a while, and many appends are on their way behind the one that is refused.
FULL_DISKS = Scenario(
    orders=60, rate=400.0, disk=DiskFaults(full=200, within=0.5, lasts=(0.0001, 0.002)),
    limits=Limits(appends_in_flight_max=8, batch_rows_max=4),
    speeds=Speeds(network=(100, 3_000)),
)  # fmt: skip
MACHINE_DEATHS = Scenario(durability="fsync", crashes=Crashes(10, broker_share=0.7, machine_share=0.8), rate=1_000.0)
RESTARTS = Scenario(orders=40, rate=300.0, crashes=Crashes(14, broker_share=0.15), snapshot_rows=6)
RETAINED = Scenario(orders=60, rate=100.0, crashes=Crashes(14, broker_share=0.1), snapshot_rows=5, retention_ms=20)
REQUEST = Scenario("request", crashes=Crashes(12, broker_share=0.1), cancel_permille=250)

#: Few products, all in stock: whoever asks for one asks while another order of it is being reserved.
QUERIES = Scenario(
    "hybrid", orders=150, rate=600.0, products=5, crashes=Crashes(6, broker_share=1.0),
    speeds=Speeds(network=(100, 8_000), restart=(1_000, 5_000), notice=(3_000, 20_000)),
)  # fmt: skip


# --- 1. progress rides with the commit --------------------------------------------------------------


@mutant("1", "appends do not carry the vector", DEATHS.judge, seed=0, caught_by="D6")
def vector_left_out(patch: Patch) -> None:
    patch.setattr(Progress, "to_json", lambda progress: {"next": {}})


@mutant("1", "an input that waits for others counts as done", SLOW_DEATHS.judge, seed=2, caught_by="Deadlock")
def waiting_input_counts_as_done(patch: Patch) -> None:
    patch.setattr(PartitionState, "hold", lambda own, position: None)


@mutant(
    "1",
    "after a restart decisions do not wait for the views",
    replace(DEATHS, links=slow_streams).judge,
    seed=1,
    caught_by="D1",
)
def views_not_awaited(patch: Patch) -> None:
    patch.setattr(Task, "views_moved", lambda task: task.phase == "catching-up" and task._go_live())


@mutant("1", "a snapshot leaves out the vector", RESTARTS.judge, seed=0, caught_by="D1")
def snapshot_without_vector(patch: Patch) -> None:
    restore = PartitionState.restore

    def forgetful(own: PartitionState, snapshot: Snapshot) -> int:
        end = restore(own, snapshot)
        own.progress = Progress()
        return end

    patch.setattr(PartitionState, "restore", forgetful)


@mutant("1", "a view's snapshot has its positions without its rows", RESTARTS.judge, seed=0, caught_by="E8")
def snapshot_of_a_view_empty(patch: Patch) -> None:
    restore = instance.restore_view

    def empty(view: View, snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> None:
        restore(view, snapshot, schemas)
        view._tables = {topic: {} for topic in view.topics}

    patch.setattr(instance, "restore_view", empty)


# --- 2. what was observable is a fact ---------------------------------------------------------------


@mutant("2", "replies leave before the append is acknowledged", REQUEST.judge, seed=0, caught_by="E1")
def replies_before_acknowledgement(patch: Patch) -> None:
    submit = Task._submit

    def eager(task: Task) -> bool:
        appended = submit(task)
        if appended and task.in_flight:
            flight = task.in_flight[-1]
            release, flight.release = flight.release, Release()
            task._tell(release)
        return appended

    patch.setattr(Task, "_submit", eager)


@mutant("2", "queries see what is not acknowledged", QUERIES.judge, seed=58, caught_by="E11")
def queries_see_ahead(patch: Patch) -> None:
    def query(task: Task, origin: Any, message: AskMessage) -> None:
        if task.phase != "live":
            error = Throttled("ask again")
            task.emit(SendReply(origin, ReplyMessage(message.id, range(len(message.rows)), (), True, error)))
            return
        task.emit(SendReply(origin, task._query_answer(message)))

    patch.setattr(Task, "query", query)


# --- 3. asks are facts first ------------------------------------------------------------------------


@mutant("3", "what the fold shows open is not asked again", REQUEST.judge, seed=2, caught_by="E4")
def open_asks_not_resumed(patch: Patch) -> None:
    patch.setattr(Conversations, "carry_on", lambda conversations, rule, kind, key, **names: None)


@mutant(
    "3",
    "callers repeat under a fresh id",
    replace(SLOW_DEATHS, crashes_while_seeding=8).judge,
    seed=0,
    caught_by="deliveries",
)
def fresh_ids_by_callers(patch: Patch) -> None:
    send = Caller._send_message

    def renamed(caller: Caller, command: str, partition: int, members: Any, now: int) -> None:
        name = caller.name
        caller.name = f"{name}-{caller._count}"
        send(caller, command, partition, members, now)
        caller.name = name

    patch.setattr(Caller, "_send_message", renamed)


@mutant(
    "3",
    "services repeat under a fresh id",
    replace(REQUEST, restocks=True, limits=IMPATIENT, speeds=SLOW_NETWORK).judge,
    seed=2,
    caught_by="restocks",
)
def fresh_ids_by_services(patch: Patch) -> None:
    emit = Asks._emit

    def renamed(asks: Asks, ask: Any, patience: int) -> None:
        message = ask.message
        fresh = [f"{identity}~{ask.repeats}" for identity in message.ids]
        kept, ask.message = message, replace(message, ids=fresh)
        emit(asks, ask, patience)
        ask.message = kept

    patch.setattr(Asks, "_emit", renamed)


@mutant(
    "3",
    "what was read before an await is trusted after it",
    replace(DEATHS, wiring="hybrid", cancel_permille=600).judge,
    seed=0,
    caught_by="InputRefused",
)
def trusts_what_was_read_before(patch: Patch) -> None:
    async def validate(orders: Orders, order: Any, talk: Any) -> None:
        if talk.state.status(order.order_id) is None:
            talk.record(await validate_by_asking(orders, order, talk))

    patch.setitem(WIRINGS["hybrid"]["orders"].rules, "OrderRequested", validate)  # type: ignore[index]


# --- 4. unknown is never final ----------------------------------------------------------------------


@mutant("4", "a timeout counts as a refusal", replace(REQUEST, limits=IMPATIENT).judge, seed=0, caught_by="E3")
def timeout_means_refused(patch: Patch) -> None:
    follow = request.follow

    async def hasty(talk: Any, step: Any) -> None:
        await follow(talk, OrderRejected(step.order_id, step.reason) if isinstance(step, OrderCancelling) else step)

    patch.setattr(request, "follow", hasty)


@mutant(
    "4",
    "a void of what was never seen is forgotten",
    replace(REQUEST, limits=IMPATIENT, links=upheaval).judge,
    seed=73,
    caught_by="E2",
)
def unseen_void_forgotten(patch: Patch) -> None:
    def void(payments: Payments, state: Any, orders: Any, out: Any) -> None:
        if all(order_id in state.known for order_id in orders["order_id"]):
            payments.void(state, orders, out)
            return
        for row, order_id in orders.rows("order_id"):
            out.answer(row, Settled(order_id, "voided"))

    patch.setitem(WIRINGS["request"]["payments"].rules, "VoidPayment", void)  # type: ignore[index]


@mutant(
    "4",
    "what an earlier life may have sent counts as not sent",
    ask_policy_story.sent_before_the_circuit_opened,
    seed=0,
    caught_by="E3",
)
def sent_by_an_earlier_life_forgotten(patch: Patch) -> None:
    patch.setattr(Conversation, "_sends_first", True)


# --- 5 and 6. compare-and-swap, epochs --------------------------------------------------------------


@mutant("5", "an append lands at the end, whatever end it names", FULL_DISKS.judge, seed=3, caught_by="Deadlock")
def append_anywhere(patch: Patch) -> None:
    append = Log.append

    def rebased(log: Log, topic: str, partition: int, entry: LogBatch) -> int:
        rules = log._files(topic, partition).rules
        header = entry.header
        if header.epoch != rules.epoch or header.base == rules.end:
            return append(log, topic, partition, entry)
        sequence = pa.array(range(rules.end, rules.end + header.rows), pa.int64())
        place = entry.batch.schema.names.index("sequence")
        batch = entry.batch.set_column(place, entry.batch.schema.field(place), sequence)
        append(log, topic, partition, LogBatch.encode(replace(header, base=rules.end, append=rules.append + 1), batch))
        return header.end

    patch.setattr(Log, "append", rebased)


@mutant("6", "a grant is no record and bumps no epoch", DEATHS.judge, seed=0, caught_by="D4")
def grants_without_epoch(patch: Patch) -> None:
    grant = Log.grant

    def lax(log: Log, topic: str, partition: int, service: str, incarnation: str, code: str = "") -> Grant:
        rules = log._files(topic, partition).rules
        if rules.epoch == 0:
            return grant(log, topic, partition, service, incarnation, code)
        rules.append = -1
        return Grant(rules.epoch, rules.end)

    patch.setattr(Log, "grant", lax)
    patch.setattr(Partition, "check_writer", lambda rules, header: rules.check_owner(header.writer))


@mutant("6", "a snapshot ends before what it holds", RESTARTS.judge, seed=0, caught_by="AssertionError")
def snapshot_ends_early(patch: Patch) -> None:
    snapshot = PartitionState.snapshot
    patch.setattr(PartitionState, "snapshot", lambda own, cluster, end, epoch: snapshot(own, cluster, end - 1, epoch))


# --- 7 to 9. the data directory, offsets, the watermark ---------------------------------------------


@mutant(
    "7",
    "a topic that the manifest names is created anew when its files are gone",
    log_scenarios.files_lost,
    seed=0,
    caught_by="OffsetOutOfRange",
)
def lost_topic_created_anew(patch: Patch) -> None:
    recover = PartitionFiles.recover

    def careless(files: PartitionFiles, **how: Any) -> None:
        if not files.bases_on_storage():
            files.create()
            files._counter.set(0)
        recover(files, **how)

    patch.setattr(PartitionFiles, "recover", careless)


@mutant(
    "8",
    "after the machine died offsets go on at the end that was found",
    log_scenarios.one_record_per_offset,
    seed=0,
    caught_by="OffsetOutOfRange",
)
def offsets_used_twice(patch: Patch) -> None:
    patch.setattr(PartitionFiles, "_record_gap", lambda files, clock: None)


@mutant("9", "a sync that writes nothing", MACHINE_DEATHS.judge, seed=0, caught_by="CorruptSegment")
def lying_sync(patch: Patch) -> None:
    patch.setattr(SimulatedStorage, "sync", lambda disk, path: disk._check_alive("a sync"))


@mutant("9", "acknowledged and shown before the sync", MACHINE_DEATHS.judge, seed=1, caught_by="CorruptSegment")
def shown_before_sync(patch: Patch) -> None:
    append = Log.append

    def hasty(log: Log, topic: str, partition: int, entry: LogBatch) -> int:
        end = append(log, topic, partition, entry)
        log._files(topic, partition).publish()
        return end

    patch.setattr(Log, "append", hasty)
    patch.setattr(WhenSynced, "end", WhenWritten.end)


@mutant(
    "9",
    "a failed sync is tried again",
    replace(MACHINE_DEATHS, disk=DiskFaults(failed_syncs=6)).judge,
    seed=3,
    caught_by="CorruptSegment",
)
def failed_sync_retried(patch: Patch) -> None:
    sync = SimulatedStorage.sync

    def stubborn(disk: SimulatedStorage, path: str) -> None:
        try:
            sync(disk, path)
        except OSError:
            disk.fail_sync = False
            sync(disk, path)

    patch.setattr(SimulatedStorage, "sync", stubborn)


# --- 12 to 16: order ids, views, partitions, columns, poison ---------------------------------------


@mutant(
    "11", "retention ignores its floors", log_scenarios.slow_reader, seed=0, caught_by="OffsetOutOfRange",
)  # fmt: skip
def floors_ignored(patch: Patch) -> None:
    retain = PartitionFiles.retain
    patch.setattr(PartitionFiles, "retain", lambda files, now, floor: retain(files, now, files.watermark))


@mutant("11", "retention forgets the listeners", RETAINED.outlives, seed=1, caught_by="OffsetOutOfRange")
def listeners_forgotten(patch: Patch) -> None:
    of_states = Floors._of_states

    def owners_alone(floors: Floors) -> Iterator[tuple[str, int]]:
        with patch.context() as inside:
            inside.setattr(Mesh, "inputs_of", lambda mesh, service, partition: [])
            yield from list(of_states(floors))

    patch.setattr(Floors, "_of_states", owners_alone)


@mutant("11", "retention forgets the views", RETAINED.outlives, seed=0, caught_by="OffsetOutOfRange")
def views_forgotten(patch: Patch) -> None:
    patch.setattr(Floors, "_of_views", lambda floors: ())


@mutant(
    "12",
    "an order id is taken as often as it comes",
    replace(SLOW_DEATHS, links=slow_streams).judge,
    seed=0,
    caught_by="E6",
)
def order_id_taken_twice(patch: Patch) -> None:
    def place_order(gateway: Gateway, state: Any, orders: Any, out: Any) -> None:
        for order_id in orders["order_id"]:
            state.taken.known.pop(order_id, None)
        gateway.place_order(state, orders, out)

    for wiring in ("views", "hybrid"):
        patch.setitem(WIRINGS[wiring]["gateway"].rules, "PlaceOrder", place_order)  # type: ignore[index]


@mutant("12", "an order id alone says what is asked", standing_story.an_id_again, seed=0, caught_by="E1")
def told_by_the_id_alone(patch: Patch) -> None:
    patch.setattr(Asked, "repeated_by", lambda asked, command, content, name: command != asked.command)


@mutant("12", "a repeat is told as if it were the first", standing_story.an_id_again, seed=0, caught_by="E1")
def repeats_unmarked(patch: Patch) -> None:
    repeated_by = Asked.repeated_by
    patch.setattr(Asked, "repeated_by", lambda asked, *again: repeated_by(asked, *again) and False)


@mutant("13", "a view of two topics keeps what arrived last", log_scenarios.shuffled_folds, seed=0, caught_by="P5")
def view_by_arrival(patch: Patch) -> None:
    apply = View.apply

    def by_arrival(view: View, topic: str, *batch: Any, **more: Any) -> None:
        one = view._tables[view.topics[0]]
        view._tables = dict.fromkeys(view.topics, one)
        apply(view, topic, *batch, **more)

    patch.setattr(View, "apply", by_arrival)


@mutant(
    "14", "a topic is opened with another number of partitions", log_scenarios.more_partitions, seed=0, caught_by="A6"
)
def partitions_not_fixed(patch: Patch) -> None:
    patch.setattr(store, "gone_on_with", lambda known, asked: dict(asked))
    recover = PartitionFiles.recover

    def growing(files: PartitionFiles, **how: Any) -> None:
        if not files.bases_on_storage():
            files.create()
        recover(files, **how)

    patch.setattr(PartitionFiles, "recover", growing)


@mutant("15", "columns are not compared with the topic's", log_scenarios.other_columns, seed=0, caught_by="unreadable")
def columns_not_checked(patch: Patch) -> None:
    patch.setattr(Partition, "check_rows", lambda rules, entry: None)


@mutant("16", "an input that breaks a rule is dropped", log_scenarios.poisoned, seed=0, caught_by="not refused")
def poison_swallowed(patch: Patch) -> None:
    patch.setattr(PartitionState, "refuse_input", lambda own, incoming, row, reason: None)


@mutant("16", "an input that breaks a rule ends the process", log_scenarios.poisoned, seed=0, caught_by="ValueError")
def poison_kills(patch: Patch) -> None:
    def isolate(decider: Decider, incoming: Incoming, defect: Exception, *, half_done: bool) -> None:
        raise defect

    patch.setattr(Decider, "_isolate", isolate)


# --- 17. timers -------------------------------------------------------------------------------------


@mutant("17", "a timer does not wait for what lies unread", timer_story.late_answers, seed=1, caught_by="expired")
def expiry_before_answers(patch: Patch) -> None:
    def at_once(task: Task) -> bool:
        task._expiry = task.clock(), {}
        return True

    patch.setattr(Task, "_ask_for_ends", at_once)


@mutant("17", "a snapshot leaves out timers", timer_story.searches_and_snapshots, seed=1, caught_by="Deadlock")
def snapshot_without_timers(patch: Patch) -> None:
    patch.setattr(Timers, "to_json", lambda timers: {})


# --- 18. schemas grow in the log ----------------------------------------------------------------------


@mutant(
    "18", "a segment goes on with the columns of the next version", version_story.SHOP_GROWS.judge,
    seed=0, caught_by="ArrowInvalid",
)  # fmt: skip
def segments_go_on(patch: Patch) -> None:
    patch.setattr(PartitionFiles, "_begin_newest_version", lambda files: None)


@mutant("18", "a version is registered last", version_story.read_beside, seed=0, caught_by="CorruptSegment")
def version_registered_last(patch: Patch) -> None:
    patch.setattr(Log, "_register", lambda log, manifest: None)


# --- 23. a sync names what it covers ----------------------------------------------------------------


@mutant(
    "23",
    "a sync acknowledges what came while it was under way",
    MACHINE_DEATHS.judge,
    seed=0,
    caught_by="OffsetOutOfRange",
)
def sync_covers_what_came_meanwhile(patch: Patch) -> None:
    def generous(log: Log, ends: Mapping[str, int]) -> None:
        for name in ends:
            log._partition(*split_position(name)).publish()

    patch.setattr(Log, "show", generous)


# --- 24. a link keeps its order ---------------------------------------------------------------------


class Forgotten(dict[Any, int]):
    """When a connection's last message arrives, which nobody remembers."""

    def get(self, key: Any, default: Any = None) -> Any:
        return default


@mutant(
    "24",
    "on a stream a message overtakes those before it",
    replace(DEATHS, links=jitter).judge,
    seed=1,
    caught_by="Deadlock",
)
def streams_out_of_order(patch: Patch) -> None:
    begin = Network.__init__

    def forgetful(network: Network, *given: Any) -> None:
        begin(network, *given)
        network._last_arrival = Forgotten()

    patch.setattr(Network, "__init__", forgetful)


# --- the gallery ------------------------------------------------------------------------------------


@mutant("gallery", "stock is reserved and never released", Scenario(stock_fraction=0.6).judge, seed=1, caught_by="E3")
def stock_never_released(patch: Patch) -> None:
    def release(inventory: Inventory, state: Any, orders: Any, out: Any) -> None:
        inventory._answer_all(state, orders, out)

    for kind in ("OrderRejected", "OrderCancelled"):
        patch.setitem(WIRINGS["views"]["inventory"].rules, kind, release)  # type: ignore[index]


@mutant("gallery", "an aggregator counts messages, not lines", log_scenarios.answers_come_twice, seed=3, caught_by="E3")
def counts_messages(patch: Patch) -> None:
    gather = RuleOutcome.gather

    def count(outcome: RuleOutcome, row: int, key: str, part: int, value: Any) -> Any:
        held = outcome.held.get(key)
        return gather(outcome, row, key, len(held.parts) if held is not None else 0, value)

    patch.setattr(RuleOutcome, "gather", count)
