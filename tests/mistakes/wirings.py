"""How the kitchen's two services hear of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventmesh.service import Talk, Trigger
from tests.mistakes.kitchen import (
    Cook,
    DishServed,
    Kitchen,
    LookAt,
    MealCooked,
    Recall,
    Serve,
    Told,
    Waiter,
    answer,
    columns,
    served,
)


async def serve(waiter: Waiter, order: Serve, talk: Talk) -> Told:
    """Ask the cook for it, write it down, and say so. A mistake is ``WHERE/WHAT``: where it is made, and which."""
    dish, (where, _, mistake) = order.dish, order.mistake.partition("/")
    wrong = {place: mistake if place == where else "" for place in ("look", "cook", "command", "fact", "answer")}
    question: Any = "how is it?" if where == "question" else LookAt(dish, wrong["look"])
    await talk.ask([question])
    await talk.command(Cook(dish, wrong["cook"], **columns(wrong["command"])))
    await talk.record(served(dish, wrong["fact"]))
    if where == "reply":
        talk.reply(answer(dish, mistake))
    if where == "another answer":
        return order  # type: ignore[return-value]
    return answer(dish, wrong["answer"])


async def serve_in_two(waiter: Waiter, order: Serve, talk: Talk) -> Told:
    """Ask the cook for two things, by commands of one name; and wait for what may never come."""
    dish, mistake = order.dish, order.mistake
    for part in ("food", "dessert"):
        name = part if mistake == "named" else ""
        await talk.command(Cook(f"{dish}, {part}", "", **columns("")), part=name)
        if mistake == "waits for itself":
            await talk.join(Serve, dish)
    return answer(dish, "")


async def cook_what_was_served(cook: Kitchen, served: DishServed, talk: Talk) -> None:
    """Ask the waiter back, who may have no answer."""
    mistake = "answer: a word" if served.dish.startswith("odd") else ""
    await talk.ask([Recall(served.dish, mistake)])
    await talk.record(MealCooked(served.dish, served.price))


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "events": {"waiter": Trigger({Serve: Waiter.serve}), "cook": Trigger({Cook: Kitchen.cook})},
    "asking": {
        "waiter": Trigger({Serve: serve}, sends=[Cook, LookAt]),
        "cook": Trigger({Cook: Kitchen.cook}),
    },
    # What its rules send it does not say, so nobody knows before they do.
    "silent": {"waiter": Trigger({Serve: serve}), "cook": Trigger({Cook: Kitchen.cook})},
    "in two": {"waiter": Trigger({Serve: serve_in_two}, sends=[Cook]), "cook": Trigger({Cook: Kitchen.cook})},
    "listening": {
        "waiter": Trigger({Serve: Waiter.serve}),
        "cook": Trigger({DishServed: cook_what_was_served}, sends=[Recall]),
    },
}
