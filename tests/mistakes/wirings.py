"""How the kitchen's two services hear of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventmesh.service import Row, Talk, Trigger
from tests.mistakes.kitchen import Cook, Waiter, answer, fact


async def serve(waiter: Waiter, row: Mapping[str, Any], talk: Talk) -> Row:
    """Ask the cook for it, write it down, and say so. A mistake is ``WHERE/WHAT``: where it is made, and which."""
    dish, (where, _, mistake) = row["dish"], row["mistake"].partition("/")
    wrong = {place: mistake if place == where else "" for place in ("look", "cook", "command", "fact", "answer")}
    question = {"dish": dish, "mistake": wrong["look"]}
    await talk.ask("LookAt", [question | {"colour": "red"} if where == "question" else question])
    await talk.command("Cook", {"dish": dish, "mistake": wrong["cook"], **fact(wrong["command"])})
    await talk.record("DishServed", dish=dish, **fact(wrong["fact"]))
    if where == "reply":
        talk.reply(**answer(dish, mistake))
    return answer(dish, wrong["answer"])


async def serve_in_two(waiter: Waiter, row: Mapping[str, Any], talk: Talk) -> Row:
    """Ask the cook for two things, by commands of one name; and wait for what may never come."""
    dish, mistake = row["dish"], row["mistake"]
    for part in ("food", "dessert"):
        name = part if mistake == "named" else ""
        await talk.command("Cook", {"dish": f"{dish}, {part}", "mistake": "", **fact("")}, part=name)
        if mistake == "waits for itself":
            await talk.join("Serve", dish)
    return answer(dish, "")


async def cook_what_was_served(cook: Cook, row: Mapping[str, Any], talk: Talk) -> None:
    """Ask the waiter back, who may have no answer."""
    mistake = "answer: a word" if row["dish"].startswith("odd") else ""
    await talk.ask("Recall", [{"dish": row["dish"], "mistake": mistake}])
    await talk.record("MealCooked", dish=row["dish"], **fact(""))


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "events": {"waiter": Trigger({"Serve": Waiter.serve}), "cook": Trigger({"Cook": Cook.cook})},
    "asking": {
        "waiter": Trigger({"Serve": serve}, sends=["Cook", "LookAt"]),
        "cook": Trigger({"Cook": Cook.cook}),
    },
    # What its rules send it does not say, so nobody knows before they do.
    "silent": {"waiter": Trigger({"Serve": serve}), "cook": Trigger({"Cook": Cook.cook})},
    "in two": {"waiter": Trigger({"Serve": serve_in_two}, sends=["Cook"]), "cook": Trigger({"Cook": Cook.cook})},
    "listening": {
        "waiter": Trigger({"Serve": Waiter.serve}),
        "cook": Trigger({"DishServed": cook_what_was_served}, sends=["Recall"]),
    },
}
