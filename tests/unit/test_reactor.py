"""Given threads that post to a reactor, then its steps come one at a time, on any thread, and none is left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventmesh.runtime.process.reactor import Reactor, now

SOON_S = 10.0


class Machine:
    """Ticks at ``deadline``, which an action may set."""

    def __init__(self) -> None:
        self.deadline: int | None = None
        self.ticked = threading.Event()
        self.ticks: list[int] = []

    def tick(self, now: int) -> None:
        self.ticks.append(now)
        self.deadline = None
        self.ticked.set()

    def next_deadline(self) -> int | None:
        return self.deadline


class Scene:
    """A reactor with its machine; ``carried`` are the effects that were carried out."""

    def __init__(self, delay_us: int = 0) -> None:
        self.carried: list[Any] = []
        self.machine = Machine()
        self.reactor = Reactor("test", delay_us, self.carried.extend, lambda: None)

    def effect(self, what: Any) -> Callable[[], None]:
        return lambda: self.reactor.effects.append(what)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    made.reactor.start(made.machine)
    yield made
    made.reactor.stop()


def test_what_cannot_wait_is_done_by_who_posts_it_to_an_idle_reactor(scene: Scene) -> None:
    done_by: list[threading.Thread] = []
    scene.reactor.post(lambda: done_by.append(threading.current_thread()), at_once=True)
    assert done_by == [threading.current_thread()]


def test_what_is_posted_during_a_step_is_done_after_it_and_holds_nobody_up(scene: Scene) -> None:
    inside, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def long() -> None:
        inside.set()
        assert go_on.wait(SOON_S)
        scene.reactor.effects.append("first")

    stepping = threading.Thread(target=lambda: scene.reactor.post(long, at_once=True))
    stepping.start()
    assert inside.wait(SOON_S)
    scene.reactor.post(lambda: (scene.reactor.effects.append("second"), done.set()), at_once=True)  # type: ignore[arg-type]
    assert scene.carried == []
    go_on.set()
    assert done.wait(SOON_S)
    stepping.join(SOON_S)
    scene.reactor.call(lambda: None)
    assert scene.carried == ["first", "second"]


def test_what_an_action_posts_is_done_in_a_later_step(scene: Scene) -> None:
    done = threading.Event()
    scene.reactor.post(lambda: scene.reactor.post(done.set, at_once=True), at_once=True)
    assert done.wait(SOON_S)


def test_of_many_threads_every_post_is_done_once_in_the_order_of_its_thread_and_no_two_at_a_time(scene: Scene) -> None:
    threads, posts = 8, 2_000
    inside = threading.Lock()
    found: list[tuple[int, int]] = []

    def action(thread: int, number: int) -> None:
        assert inside.acquire(blocking=False), "two steps at a time"
        found.append((thread, number))
        inside.release()

    def post_all(thread: int) -> None:
        for number in range(posts):
            scene.reactor.post(lambda number=number: action(thread, number), at_once=number % 3 > 0)  # type: ignore[misc]

    posting = [threading.Thread(target=post_all, args=(number,)) for number in range(threads)]
    for each in posting:
        each.start()
    for each in posting:
        each.join(SOON_S)
    deadline = time.monotonic() + SOON_S
    while len(found) < threads * posts and time.monotonic() < deadline:
        scene.reactor.call(lambda: None)
    assert scene.reactor.failure is None
    for thread in range(threads):
        assert [number for each, number in found if each == thread] == list(range(posts))


def test_the_last_post_of_a_burst_is_never_forgotten(scene: Scene) -> None:
    """Where the look into the inbox came before the end of the step, one that is posted between them would sleep."""
    for _ in range(300):
        done = [threading.Event() for _ in range(4)]
        posting = [threading.Thread(target=scene.reactor.post, args=(each.set, None, True)) for each in done]
        for each in posting:
            each.start()
        assert all(each.wait(0.5) for each in done), "it waited for the reactor's nap to end"
        for each in posting:
            each.join(SOON_S)


def test_a_deadline_that_a_step_of_another_thread_sets_is_kept(scene: Scene) -> None:
    def set_deadline() -> None:
        scene.machine.deadline = now() + 20_000

    begun = now()
    scene.reactor.post(set_deadline, at_once=True)
    assert scene.machine.ticked.wait(SOON_S)
    assert 20_000 <= scene.machine.ticks[0] - begun < 900_000, "it waited for the reactor's nap to end"


def test_with_an_emulated_round_trip_a_message_waits_for_half_of_it() -> None:
    scene = Scene(delay_us=30_000)
    scene.reactor.start(scene.machine)
    done, at = threading.Event(), [0]

    def arrive() -> None:
        at[0] = now()
        done.set()

    sent_at = now()
    scene.reactor.post(arrive, sent_at)
    assert done.wait(SOON_S)
    assert at[0] - sent_at >= 30_000
    scene.reactor.stop()


def test_a_step_that_fails_is_the_last_and_says_why_and_who_posted_it_goes_on(scene: Scene) -> None:
    def fail() -> None:
        raise ValueError("broken")

    scene.reactor.post(fail, at_once=True)
    assert repr(scene.reactor.failure) == "ValueError('broken')"
    with pytest.raises(TimeoutError, match="broken"):
        scene.reactor.call(lambda: None, timeout_s=0.05)


def test_when_it_was_stopped_no_step_is_taken_any_more() -> None:
    scene = Scene()
    scene.reactor.post(scene.effect("before"))
    assert scene.carried == [], "there is nothing to drive yet"
    scene.reactor.start(scene.machine)
    scene.reactor.call(lambda: None)
    scene.reactor.stop()
    scene.reactor.post(scene.effect("after"))
    assert scene.carried == ["before"]
