"""The rules of the four services, each written once for both wirings."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from eventmesh.declared import Facts
from eventmesh.service import Inputs, Outcome, Service
from tests.delivery.facts import (
    Charge,
    Charged,
    Cook,
    CourierAssigned,
    CourierMissing,
    CouriersCame,
    DishCooked,
    Done,
    FindCourier,
    MealAnswer,
    MealDelivered,
    MealFailed,
    MealOrdered,
    OrderMeal,
    Refund,
    Refunded,
    SearchBegan,
    SearchTimedOut,
    SendCouriers,
    StopSearch,
)

NO_COURIER = "no courier within {0:g} s"


class Options(BaseModel):
    """How long a courier is searched for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search_s: float = Field(600.0, gt=0, description="Seconds in which a courier must be found.")


@dataclass
class Meal:
    """An order, and what became of it."""

    zone: str
    food: int
    tip: int
    status: str = "ordered"
    reason: str | None = None


@dataclass
class Meals:
    """All orders."""

    known: dict[str, Meal] = field(default_factory=dict)


class App(Service):
    """Takes orders, and tells what becomes of them."""

    name = "app"

    def initial(self) -> Meals:
        """Nobody is hungry yet."""
        return Meals()

    def evolve(self, state: Meals, facts: Facts) -> None:
        """An order has one end."""
        for fact in facts.each():
            match fact:
                case MealOrdered():
                    state.known[fact.order_id] = Meal(fact.zone, fact.food, fact.tip)
                case MealDelivered():
                    state.known[fact.order_id].status = "delivered"
                case MealFailed():
                    meal = state.known[fact.order_id]
                    meal.status, meal.reason = "failed", fact.reason

    def unfinished(self, state: Meals) -> list[str]:
        """Orders without an end."""
        return [order_id for order_id, meal in state.known.items() if meal.status == "ordered"]

    @property
    def no_courier(self) -> str:
        """Why an order fails."""
        return NO_COURIER.format(self.place.options.search_s)

    def told(self, state: Meals, order_id: str) -> MealAnswer:
        """What the fold says of an order."""
        meal = state.known[order_id]
        return MealAnswer(order_id, meal.status, meal.reason)

    def order(self, state: Meals, meals: Inputs[OrderMeal], out: Outcome) -> None:
        """Write it down; what becomes of it, the others say."""
        for row, meal in meals.each():
            known = state.known.get(meal.order_id)
            if known is None:
                out.fact(row, MealOrdered(meal.order_id, meal.zone, meal.food, meal.tip))
            if known is not None and known.status != "ordered":
                out.answer(row, self.told(state, meal.order_id))
            else:
                out.watch(row, meal.order_id)
                out.answer(row, MealAnswer(meal.order_id, "accepted"), more=True)

    def cooked(self, state: Meals, dishes: Inputs[DishCooked], out: Outcome) -> None:
        """The courier has it."""
        for row, dish in dishes.each():
            if dish.order_id in state.known and state.known[dish.order_id].status == "ordered":
                out.fact(row, MealDelivered(dish.order_id))
                out.tell(dish.order_id, self.told(state, dish.order_id))

    def missing(self, state: Meals, rides: Inputs[CourierMissing], out: Outcome) -> None:
        """Nobody brings it."""
        for row, ride in rides.each():
            if ride.order_id in state.known and state.known[ride.order_id].status == "ordered":
                out.fact(row, MealFailed(ride.order_id, self.no_courier))
                out.tell(ride.order_id, self.told(state, ride.order_id))


@dataclass
class Ledger:
    """What each order was charged for, and what was given back."""

    charged: dict[str, dict[str, int]] = field(default_factory=dict)
    refunded: set[str] = field(default_factory=set)


class Till(Service):
    """Charges each thing once; gives back once."""

    name = "till"

    def initial(self) -> Ledger:
        """Nothing taken."""
        return Ledger()

    def evolve(self, state: Ledger, facts: Facts) -> None:
        """What was taken is given back as a whole."""
        for fact in facts.each():
            match fact:
                case Charged():
                    state.charged.setdefault(fact.order_id, {})[fact.what] = fact.amount
                case Refunded():
                    state.refunded.add(fact.order_id)

    def charge_all(self, state: Ledger, meals: Inputs[MealOrdered], out: Outcome) -> None:
        """Food and tip."""
        for row, meal in meals.each():
            for what, amount in (("food", meal.food), ("tip", meal.tip)):
                self._charge(state, row, meal.order_id, what, amount, out)

    def charge(self, state: Ledger, charges: Inputs[Charge], out: Outcome) -> None:
        """One of them."""
        for row, charge in charges.each():
            self._charge(state, row, charge.order_id, charge.what, charge.amount, out)
            out.answer(row, Done(charge.order_id, "refunded" if charge.order_id in state.refunded else "charged"))

    def _charge(self, state: Ledger, row: int, order_id: str, what: str, amount: int, out: Outcome) -> None:
        if what not in state.charged.get(order_id, {}) and order_id not in state.refunded:
            out.fact(row, Charged(order_id, what, amount))

    def refund(self, state: Ledger, orders: Inputs[Refund | MealFailed], out: Outcome) -> None:
        """All of it; what was never charged never will be."""
        for row, order in orders.each():
            if order.order_id not in state.refunded:
                out.fact(row, Refunded(order.order_id, sum(state.charged.get(order.order_id, {}).values())))
            out.answer(row, Done(order.order_id, "refunded"))


@dataclass
class Zone:
    """Free couriers, and orders that wait for one, the oldest first."""

    free: int = 0
    waiting: list[str] = field(default_factory=list)


@dataclass
class Rides:
    """Zones, the orders whose search is over, and the couriers that came by each command."""

    zones: dict[str, Zone] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    came: set[str] = field(default_factory=set)

    def status(self, zone: str, order_id: str) -> str | None:
        """What is known of a search."""
        if order_id in self.zones.get(zone, Zone()).waiting:
            return "searching"
        return self.ended.get(order_id)


class Couriers(Service):
    """Gives each order a courier of its zone; none within a time is an answer, too. A courier brings one meal."""

    name = "couriers"

    def initial(self) -> Rides:
        """Nobody works."""
        return Rides()

    def evolve(self, state: Rides, facts: Facts) -> None:
        """Couriers come and go; who waits longest is next."""
        for fact in facts.each():
            match fact:
                case CouriersCame():
                    state.zones.setdefault(fact.zone, Zone()).free += fact.count
                    state.came.add(fact.reason)
                case SearchBegan():
                    state.zones.setdefault(fact.zone, Zone()).waiting.append(fact.order_id)
                case CourierAssigned():
                    zone = state.zones[fact.zone]
                    assert zone.free > 0, f"no courier is free in {fact.zone}"
                    zone.free -= 1
                    self._end(state, zone, fact.order_id, "assigned")
                case CourierMissing():
                    self._end(state, state.zones.setdefault(fact.zone, Zone()), fact.order_id, "missing")

    def _end(self, state: Rides, zone: Zone, order_id: str, how: str) -> None:
        if order_id in zone.waiting:
            zone.waiting.remove(order_id)
        state.ended[order_id] = how

    def send(self, state: Rides, couriers: Inputs[SendCouriers], out: Outcome) -> None:
        """They come, and bring what waits."""
        for row, sent in couriers.each():
            command = couriers.ids[row]
            if command not in state.came:
                out.fact(row, CouriersCame(sent.zone, sent.count, command))
            zone = state.zones[sent.zone]
            while zone.free and zone.waiting:
                self._assign(row, sent.zone, zone.waiting[0], out)
            out.answer(row, Done(None, "came"))

    def _assign(self, row: int, zone: str, order_id: str, out: Outcome) -> None:
        out.fact(row, CourierAssigned(zone, order_id))
        out.cancel(SearchTimedOut, order_id)
        out.tell(order_id, Done(order_id, "assigned"))

    def find(self, state: Rides, meals: Inputs[FindCourier | MealOrdered], out: Outcome) -> None:
        """Now, or when one comes; in the wiring that tells, the search has its time."""
        for row, meal in meals.each():
            if self.place.partition_of("rides", meal.zone) != self.place.partition:
                continue
            if state.status(meal.zone, meal.order_id) is None:
                self._search(state, row, meal.zone, meal.order_id, out, timed=not out.asked)
            status = state.status(meal.zone, meal.order_id) or ""
            if status == "searching":
                out.watch(row, meal.order_id)
            else:
                out.answer(row, Done(meal.order_id, status))

    def _search(self, state: Rides, row: int, zone: str, order_id: str, out: Outcome, *, timed: bool) -> None:
        if state.zones.get(zone, Zone()).free:
            self._assign(row, zone, order_id, out)
            return
        out.fact(row, SearchBegan(zone, order_id))
        if timed:
            out.after(row, self.place.options.search_s, SearchTimedOut(zone, order_id), name=order_id)

    def give_up(self, state: Rides, searches: Inputs[SearchTimedOut | StopSearch], out: Outcome) -> None:
        """The search is over, unless a courier was found."""
        for row, search in searches.each():
            if state.status(search.zone, search.order_id) in (None, "searching"):
                out.fact(row, CourierMissing(search.zone, search.order_id))
                out.tell(search.order_id, Done(search.order_id, "missing"))
            out.answer(row, Done(search.order_id, state.ended[search.order_id]))


@dataclass
class Stove:
    """What is cooked."""

    cooked: set[str] = field(default_factory=set)


class Kitchen(Service):
    """Cooks each order once."""

    name = "kitchen"

    def initial(self) -> Stove:
        """Cold."""
        return Stove()

    def evolve(self, state: Stove, facts: Facts) -> None:
        """A dish is cooked once."""
        for fact in facts.each():
            assert isinstance(fact, DishCooked)
            state.cooked.add(fact.order_id)

    def cook(self, state: Stove, orders: Inputs[Cook | CourierAssigned], out: Outcome) -> None:
        """When a courier is there to bring it."""
        for row, order in orders.each():
            if self.place.partition_of("dishes", order.order_id) != self.place.partition:
                continue
            if order.order_id not in state.cooked:
                out.fact(row, DishCooked(order.order_id))
            out.answer(row, Done(order.order_id, "cooked"))
