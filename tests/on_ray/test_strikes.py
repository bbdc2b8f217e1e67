"""Given processes that say who they are, then a signal hits them and no stranger, and who starts anew is told again.

Nothing here starts Ray: actors are made up, and answer at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventmesh import mesh as meshes
from eventmesh.errors import ConfigurationError, PeerLost
from eventmesh.mesh import Mesh
from eventmesh.runtime.faults import End, Fault, Freeze, FullDisk, Kill, SlowDisk, Stall, TornWrite
from eventmesh.runtime.on_ray import strikes as on_ray
from eventmesh.runtime.on_ray.actors import Actors, service_peers
from eventmesh.runtime.on_ray.strikes import Strikes
from eventmesh.runtime.process.undos import Heal, Thaw, Undo
from eventmesh.runtime.process.vitals import Life, Process, numbered_by

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
SOON_S = 10.0
LONG_S = 600.0


class Method:
    """A method of a made-up actor: what a call of it returns is there at once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function

    def options(self, **_: Any) -> Method:
        return self


class Actor:
    """A process that only sleeps, and in this one what it would do to itself."""

    def __init__(self) -> None:
        self.lives = 0
        self.begin_life()

    def begin_life(self) -> None:
        if self.lives:
            self.end()
        self.lives += 1
        self.child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        self.started = psutil.Process(self.child.pid).create_time()
        self.inside = Process()

    def __getattr__(self, name: str) -> Method:
        if name == "life":
            return Method(lambda: self.this_life)
        if name == "came_of":
            return Method(lambda fault: (self.this_life, self.inside.came_of(fault)[1]))
        return Method(lambda *given: getattr(self.inside, name)(*given))

    @property
    def this_life(self) -> Life:
        return Life(numbered_by(), self.child.pid, self.started, self.inside.life().began_us)

    @property
    def state(self) -> str:
        return str(psutil.Process(self.child.pid).status())

    def end(self) -> None:
        self.child.kill()
        self.child.communicate()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(asked: Mapping[Any, Any], timeout_s: float) -> dict[Any, Any]:
        return dict(asked)

    monkeypatch.setattr(on_ray, "answered", answered)
    monkeypatch.setattr(on_ray, "get", lambda answer: answer)
    monkeypatch.setattr(on_ray.ray, "wait", lambda asked, **_: (asked, []))


@pytest.fixture
def mesh() -> Mesh:
    return meshes.load(MESHES / "views.yaml")


@pytest.fixture
def actors(mesh: Mesh) -> Iterator[Actors]:
    made = Actors(Actor(), {peer: Actor() for peer in service_peers(mesh)}, Actor())
    yield made
    for each in made.all.values():
        each.end()


@pytest.fixture
def strikes(mesh: Mesh, actors: Actors) -> Iterator[Strikes]:
    made = Strikes(mesh, actors)
    yield made
    made.heal()
    made.close()


class Kept:
    """A list of undos, which says what was there when each was noted. ``refusing``: it takes none."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.noted: dict[str, tuple[Undo, object]] = {}
        self.forgotten: list[str] = []
        self.renewed, self.refusing, self._look = 0, False, look

    def note(self, fault: str, undo: Undo) -> None:
        if self.refusing:
            raise PeerLost("the supervisor is not there")
        self.noted[fault] = undo, self._look()

    def renew(self) -> None:
        self.renewed += 1

    def forget(self, fault: str) -> None:
        self.forgotten.append(fault)


@pytest.mark.parametrize(
    "fault",
    [Freeze(process="orders/0", lasts_s=LONG_S), Stall(source="*", target="broker", lasts_s=LONG_S)],
    ids=["freeze", "stall"],
)
def test_an_undo_is_written_down_before_the_fault_is_made(mesh: Mesh, actors: Actors, fault: Fault) -> None:
    orders = actors.services["orders", 0]

    def struck() -> bool:
        return orders.state == psutil.STATUS_STOPPED or bool(orders.inside.strikes._lasting)

    kept = Kept(struck)
    strikes = Strikes(mesh, actors, kept)
    strikes.strike(fault)
    until(struck)
    ((name, (undo, before)),) = kept.noted.items()
    assert not before
    assert undo == (
        Thaw(numbered_by(), orders.child.pid, orders.started) if isinstance(fault, Freeze) else Heal()
    )  # fmt: skip
    until(lambda: kept.renewed > 1)
    assert kept.forgotten == []
    strikes.heal()
    until(lambda: kept.forgotten == [name])
    kept.refusing = True
    with pytest.raises(PeerLost, match="supervisor"):
        strikes.strike(fault)
    assert not struck(), "what nobody could undo is not done"
    strikes.close()


def test_who_is_killed_is_gone_and_it_is_over_when_the_next_life_answers(strikes: Strikes, actors: Actors) -> None:
    orders = actors.services["orders", 0]
    struck = strikes.strike(Kill(process="orders/0"))
    assert orders.child.wait(SOON_S) is not None
    assert struck.shows == {"lives ended": 1}
    assert struck.ended_us is None
    before = orders.child.pid
    orders.begin_life()
    until(lambda: struck.ended_us is not None)
    assert struck.shows == {"lives ended": 1, "lives begun": 1}
    assert struck.details == {"orders/0 before": str(before), "orders/0 after": str(orders.child.pid)}
    assert struck.ended_us == orders.this_life.began_us, "not when somebody looked"


def test_a_whole_machine_is_the_broker_and_all_services(strikes: Strikes, actors: Actors) -> None:
    struck = strikes.strike(Kill(process="machine"))
    for each in (actors.broker, *actors.services.values()):
        assert each.child.wait(SOON_S) is not None
    assert actors.generator.child.poll() is None
    assert struck.shows["lives ended"] == 1 + len(actors.services)


@pytest.mark.parametrize("fault", [Kill(process="orders/0"), Freeze(process="orders/0", lasts_s=LONG_S)])
def test_a_stranger_who_was_given_the_number_since_is_not_hit(strikes: Strikes, actors: Actors, fault: Fault) -> None:
    orders = actors.services["orders", 0]
    orders.started -= 100
    struck = strikes.strike(fault)
    assert orders.child.poll() is None
    assert orders.state != psutil.STATUS_STOPPED
    assert not struck.happened


def test_who_is_frozen_stands_still_until_its_time_is_over(strikes: Strikes, actors: Actors) -> None:
    struck = strikes.strike(Freeze(process="broker", lasts_s=0.3))
    assert struck.shows == {"processes frozen": 1}
    until(lambda: actors.broker.state == psutil.STATUS_STOPPED or struck.ended_us is not None)
    until(lambda: struck.ended_us is not None)
    until(lambda: actors.broker.state != psutil.STATUS_STOPPED)
    assert struck.ended_us is not None
    assert struck.ended_us - struck.at_us >= 300_000


def test_who_is_frozen_goes_on_when_it_is_healed_or_the_mesh_ends(strikes: Strikes, actors: Actors) -> None:
    for thaw in (strikes.heal, strikes.heal, strikes.close):
        strikes.strike(Freeze(process="broker", lasts_s=LONG_S))
        until(lambda: actors.broker.state == psutil.STATUS_STOPPED)
        thaw()
        until(lambda: actors.broker.state != psutil.STATUS_STOPPED)


def test_who_is_frozen_and_then_killed_by_its_supervisor_has_died(strikes: Strikes, actors: Actors) -> None:
    struck = strikes.strike(Freeze(process="broker", lasts_s=LONG_S))
    actors.broker.child.kill()
    until(lambda: struck.ended_us is not None)
    assert struck.shows == {"processes frozen": 1, "lives ended": 1}


def test_every_process_is_told_of_a_link_and_who_starts_meanwhile_is_told_the_rest(
    strikes: Strikes, actors: Actors
) -> None:
    struck = strikes.strike(Stall(source="*", target="broker", lasts_s=LONG_S))
    orders = actors.services["orders", 0]
    (name,) = orders.inside.strikes._lasting
    assert all(each.inside.came_of(name)[1] is not None for each in actors.all.values())
    orders.end()
    orders.begin_life()
    until(lambda: orders.inside.came_of(name)[1] is not None)
    told = orders.inside.came_of(name)[1]
    assert told.fault.lasts_s < LONG_S, "what is left of it"
    strikes.heal()
    assert struck.ended_us is not None
    assert all(each.inside.came_of(name)[1].ended_us is not None for each in actors.all.values())


@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        (End(process="orders/0", lasts_s=LONG_S), {"lives ended": 1, "lives begun": 1}),
        (TornWrite(after_bytes=9), {"writes torn": 1, "lives ended": 1, "lives begun": 1}),
    ],
    ids=["end", "torn write"],
)
def test_who_ends_itself_has_done_so_when_its_next_life_answers(
    strikes: Strikes, actors: Actors, fault: Fault, shows: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = actors.services["orders", 0] if isinstance(fault, End) else actors.broker
    if isinstance(fault, TornWrite):
        monkeypatch.setattr(actor.inside.strikes, "_begin", lambda struck, name: lambda: None)
    monkeypatch.setattr(actor.inside.strikes, "_leave", lambda code: None)
    struck = strikes.strike(fault)
    actor.end()
    actor.begin_life()
    strikes._watched[0]._until = 0.0  # type: ignore[attr-defined]
    until(lambda: struck.ended_us is not None)
    assert dict(struck.shows) == shows
    assert struck.ended_us == actor.this_life.began_us, "not when somebody looked"


@pytest.mark.parametrize(
    ("level", "fault", "said"),
    [
        ("memory", FullDisk(lasts_s=1), "at level memory there is no disk"),
        ("memory", Kill(process="broker"), "a broker that is gone is not started again"),
        ("memory", End(process="broker", lasts_s=1), "a broker that is gone is not started again"),
        ("os", SlowDisk(extra_ms=1, lasts_s=1), "at level os nothing waits for a sync"),
        ("os", Kill(process="nobody/0"), "there is no process 'nobody/0'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_done(
    mesh: Mesh, actors: Actors, level: str, fault: Fault, said: str
) -> None:
    document = mesh.resolved()
    document["log"]["durability"] = level
    strikes = Strikes(meshes.parse(document), actors)
    with pytest.raises(ConfigurationError, match=said):
        strikes.strike(fault)
    assert all(each.child.poll() is None for each in actors.all.values())
