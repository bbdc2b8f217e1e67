"""Given a service that is away, then each question to it is repeated and given up in its time, however many come."""

from __future__ import annotations

from eventmesh.declared import Answer, Declared, Query
from eventmesh.errors import AskTimeout
from eventmesh.log.topic import Topic
from eventmesh.messages import topic_schema
from eventmesh.runtime.asks import Asks
from eventmesh.runtime.effects import SendAsk
from eventmesh.runtime.limits import Counters, Limits


class Heard(Answer):
    """What is answered."""

    name: str


class Ask(Query[Heard], service="there", key="name"):
    """A question by name."""

    name: str


DECLARED = Declared(Ask)
MS = 1_000


def test_questions_that_find_nobody_do_not_put_off_those_before_them() -> None:
    now, sent = 0, list[SendAsk]()
    there = Topic("there", "there", "name", 1, topic_schema([]))
    asks = Asks(
        "here/0", DECLARED.messages, {"there": there}, {"there"}, Limits(), lambda: now, sent.append, Counters()
    )
    first = asks.query("Ask", [{"name": "first"}], attempts=4)
    while not first.resolved and now < 60_000 * MS:
        now += 10 * MS
        asks.query("Ask", [{"name": f"at {now}"}], attempts=4)  # nobody is there, as it learns at once
        asks.lost("there")
        asks.tick(now)
    assert first.resolved
    assert isinstance(first.error, AskTimeout)
    assert 500 * MS < now < 1_500 * MS, "4 attempts, with 50, 100, 200 and 400 ms after them"
    assert sum(each.message.rows["name"][0] == "first" for each in sent) == 4
