"""``told``: each service reacts to what the others wrote down. ``asked``: the app commands the others, and waits."""

from __future__ import annotations

from collections.abc import Mapping

from eventmesh.service import UNTIL_ANSWERED, Talk, Trigger
from tests.delivery.facts import (
    Charge,
    Cook,
    CourierAssigned,
    CourierMissing,
    DishCooked,
    FindCourier,
    MealAnswer,
    MealDelivered,
    MealFailed,
    MealOrdered,
    OrderMeal,
    Refund,
    SearchTimedOut,
    SendCouriers,
    StopSearch,
)
from tests.delivery.services import App, Couriers, Kitchen, Till


async def order(app: App, meal: OrderMeal, talk: Talk) -> MealAnswer:
    """Write it down, and see it through."""
    if meal.order_id not in talk.state.known:
        await talk.record(MealOrdered(meal.order_id, meal.zone, meal.food, meal.tip))
    return await see_through(app, meal.order_id, talk)


async def see_through(app: App, order_id: str, talk: Talk) -> MealAnswer:
    """Charge, find a courier within the time, cook; without a courier, give the money back."""
    meal = talk.state.known[order_id]
    if meal.status != "ordered":
        return app.told(talk.state, order_id)
    for what, amount in (("food", meal.food), ("tip", meal.tip)):
        await talk.command(Charge(order_id, what, amount), attempts=UNTIL_ANSWERED, part=what)
    search = talk.command(FindCourier(meal.zone, order_id), attempts=UNTIL_ANSWERED)
    found = await talk.until(app.place.options.search_s, search, name="courier")
    if found is None:
        found = await talk.command(StopSearch(meal.zone, order_id), attempts=UNTIL_ANSWERED)
    if found.outcome == "assigned":
        await talk.command(Cook(order_id), attempts=UNTIL_ANSWERED)
        await talk.record(MealDelivered(order_id))
    else:
        await talk.command(Refund(order_id), attempts=UNTIL_ANSWERED)
        await talk.record(MealFailed(order_id, app.no_courier))
    return app.told(talk.state, order_id)


WIRINGS: dict[str, Mapping[str, Trigger]] = {
    "told": {
        "app": Trigger({OrderMeal: App.order, DishCooked: App.cooked, CourierMissing: App.missing}),
        "till": Trigger({MealOrdered: Till.charge_all, MealFailed: Till.refund}),
        "couriers": Trigger(
            {MealOrdered: Couriers.find, SendCouriers: Couriers.send, SearchTimedOut: Couriers.give_up}
        ),
        "kitchen": Trigger({CourierAssigned: Kitchen.cook}),
    },
    "asked": {
        "app": Trigger(
            {OrderMeal: order},
            resume={OrderMeal: see_through},
            sends=[Charge, Refund, FindCourier, StopSearch, Cook],
        ),
        "till": Trigger({Charge: Till.charge, Refund: Till.refund}),
        "couriers": Trigger({FindCourier: Couriers.find, StopSearch: Couriers.give_up, SendCouriers: Couriers.send}),
        "kitchen": Trigger({Cook: Kitchen.cook}),
    },
}
