"""Given any policies, and answers that are lost, late or none, then nothing that may have happened is told as a no."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eventmesh.errors import NOT_SENT, AskTimeout, DidNotHappen, EventmeshError, PeerLost, Throttled
from eventmesh.runtime.asks import HEDGE
from eventmesh.runtime.effects import ReplyMessage
from eventmesh.runtime.pending import Pending
from tests.unit.ask_story import MS, Asking

#: Longer than any pause or time that is drawn.
LONG_MS = 5_000


def optional(values: dict[str, Any]) -> Any:
    return st.fixed_dictionaries({}, optional=values)


POLICY = optional(
    {
        "attempts": st.integers(1, 4),
        "timeout_ms": st.sampled_from([5, 20]),
        "deadline_ms": st.sampled_from([20, 60]),
        "backoff": st.fixed_dictionaries(
            {"first_ms": st.sampled_from([1, 10]), "max_ms": st.just(30), "jitter": st.sampled_from([0.0, 0.5])}
        ),
        "circuit_breaker": st.fixed_dictionaries(
            {
                "consecutive_failures": st.integers(1, 3), "wait_duration_in_open_state_ms": st.sampled_from([5, 40]),
                "permitted_number_of_calls_in_half_open_state": st.integers(1, 2),
            }
        ),
        "bulkhead": st.fixed_dictionaries({"in_flight_max": st.integers(1, 3), "queued_max": st.integers(0, 2)}),
    }
)  # fmt: skip
OF_QUERIES = optional(
    {"cache": st.just({"ttl_ms": 10, "stale_while_revalidate_ms": 20}), "hedge": st.just({"after_ms": 3})}
)
ANSWERS = st.sampled_from(["yes", "yes", "no", "later", "unknown"])
STORIES = st.sampled_from(["o1", "o2", "o3", "o4"])
EVENT = st.one_of(
    st.tuples(st.just("take"), STORIES, st.booleans(), st.booleans()),
    st.tuples(st.just("look"), st.sampled_from("ab"), st.booleans(), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0, 1, 4, 11, 50])),
    st.tuples(st.just("answer"), st.integers(0, 30), ANSWERS),
    st.tuples(st.just("lose")),
    st.tuples(st.just("fold again"), st.booleans()),
)
ERRORS: dict[str, EventmeshError] = {
    "no": DidNotHappen("refused"), "later": Throttled("later"), "unknown": PeerLost("?"),
}  # fmt: skip


class World:
    """Two tasks of one process. What they send goes out, and may be answered, any number of times, or never."""

    def __init__(self, policy: dict[str, Any], of_queries: dict[str, Any]) -> None:
        one = Asking({"default": policy, "Look": of_queries})
        self.tasks = [one, one.beside()]
        self.open: list[tuple[Asking, str, Pending, bool]] = []  # the task, the id of a command, whether it persists
        self.refused: set[str] = set()  # ids that were answered with a no

    def went_out(self) -> set[str]:
        """The ids of all commands that anybody has ever sent."""
        return {identity for task in self.tasks for _, each in task.sent for identity in each.message.ids}

    def take(self, story: str, second: bool, persists: bool) -> None:
        task = self.tasks[second]
        identity = f"{task.asks.sender}:Take:{story}:0"
        if any(each[1] == identity and not each[2].resolved for each in self.open):
            return  # one conversation at a time
        # A conversation knows that nothing can have gone out before, or does not know it: never the contrary.
        pending = task.take(story, unsent=identity not in self.went_out(), insists=persists)
        self.open.append((task, identity, pending, persists))

    def look(self, name: str, second: bool, persists: bool) -> None:
        task = self.tasks[second]
        self.open.append((task, "", task.look(name, attempts=None if persists else 2), persists))

    def answer(self, number: int, how: str) -> None:
        sent = [(task, each.message) for task in self.tasks for _, each in task.sent]
        if not sent:
            return
        task, message = sent[number % len(sent)]
        rows = [{"name": name, "version": 1} for name in message.rows["name"]] if how == "yes" else []
        if how == "no":
            self.refused |= set(message.ids)
        task.asks.replied(ReplyMessage(message.id, range(len(message.rows)), rows, True, ERRORS.get(how)))

    def step(self, event: tuple[Any, ...]) -> None:
        what, *how = event
        if what == "take":
            self.take(*how)
        elif what == "look":
            self.look(*how)
        elif what == "answer":
            self.answer(*how)
        elif what == "pass":
            self.pass_ms(*how)
        else:
            for task in self.tasks[:1] if how == [False] else self.tasks:
                task.asks.lost("there") if what == "lose" else self.fold_again(task)
        self.check()

    def pass_ms(self, milliseconds: int) -> None:
        for _ in range(max(1, milliseconds)):
            for task in self.tasks:
                task.pass_ms(min(1, milliseconds))

    def fold_again(self, task: Asking) -> None:
        task.asks.clear()
        self.open = [each for each in self.open if each[0] is not task]

    def check(self) -> None:
        went_out = self.went_out()
        for _, identity, pending, persists in self.open:
            error = pending.error
            if error is None:
                continue
            assert not persists or type(error) is DidNotHappen, f"{error!r} ended what is asked until it is answered"
            if isinstance(error, NOT_SENT):
                assert identity not in went_out, f"{identity} went out, and is told as {error!r}"
            elif isinstance(error, EventmeshError) and error.definite and identity:
                assert identity in self.refused, f"{identity} is told as {error!r}"
            else:
                assert isinstance(error, (AskTimeout, DidNotHappen))
        self.check_places()

    def check_places(self) -> None:
        """No more asks are on their way than the bulkhead has places, hedges aside."""
        bulkhead = self.tasks[0].guards.of(self.tasks[0].asks.messages["Take"]).bulkhead
        if bulkhead is not None:
            flying = {
                ask.message.id
                for task in self.tasks
                for name, ask in task.asks._open.items()
                if not name.endswith(HEDGE) and ask.flying
            }
            assert len(flying) <= bulkhead.in_flight_max

    def answer_all(self) -> None:
        """Whoever is asked answers at once from now on."""
        for _ in range(300):
            self.pass_ms(5)
            for task in self.tasks:
                for name in list(task.asks._open):
                    [message] = {
                        each.message.id: each.message for _, each in task.sent if each.message.id == name
                    }.values() or [None]
                    if message is not None:
                        rows = [{"name": one, "version": 1} for one in message.rows["name"]]
                        task.asks.replied(ReplyMessage(name, range(len(rows)), rows))
            self.check()


@settings(max_examples=300, deadline=None)
@given(POLICY, OF_QUERIES, st.lists(EVENT, max_size=40))
def test_what_may_have_happened_is_never_told_as_a_no(
    policy: dict[str, Any], of_queries: dict[str, Any], events: list[tuple[Any, ...]]
) -> None:
    world = World(policy, of_queries)
    for event in events:
        world.step(event)
    world.answer_all()
    assert all(pending.resolved for _, _, pending, _ in world.open), "everything ends once it is answered"
    for task in world.tasks:
        assert (len(task.asks), task.asks.next_deadline()) == (0, None)
    guard = world.tasks[0].guards.of(world.tasks[0].asks.messages["Take"])
    if guard.bulkhead is not None:
        assert (guard.bulkhead.queued, guard.bulkhead.full) == (0, False), "every place is free again"
    if guard.breaker is not None:
        assert guard.breaker.let_out((world.tasks[0].now + LONG_MS) * MS) is not None, "a circuit closes in the end"
