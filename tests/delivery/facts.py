"""What happens between a guest's order and the meal, and what may be asked of whom."""

from __future__ import annotations

from eventmesh.declared import Answer, Command, Fact


class MealOrdered(Fact, topic="meals"):
    """A guest wants it; amounts are in minor units."""

    order_id: str
    zone: str
    food: int
    tip: int


class MealDelivered(Fact, topic="meals"):
    """The guest has it."""

    order_id: str


class MealFailed(Fact, topic="meals"):
    """Nobody brings it."""

    order_id: str
    reason: str


class Charged(Fact, topic="charges"):
    """The guest has paid for ``what``: food or tip."""

    order_id: str
    what: str
    amount: int


class Refunded(Fact, topic="charges"):
    """The guest has the money back; no charge of the order comes after."""

    order_id: str
    amount: int


class CouriersCame(Fact, topic="rides"):
    """Couriers of a zone began to work, as ``reason``, a command, had it."""

    zone: str
    count: int
    reason: str


class SearchBegan(Fact, topic="rides"):
    """There is no courier in the zone now."""

    zone: str
    order_id: str


class CourierAssigned(Fact, topic="rides"):
    """A courier brings it."""

    zone: str
    order_id: str


class SearchTimedOut(Fact, topic="rides"):
    """The time in which a courier must be found is over."""

    zone: str
    order_id: str


class CourierMissing(Fact, topic="rides"):
    """None was found; the search is over."""

    zone: str
    order_id: str


class DishCooked(Fact, topic="dishes"):
    """It is ready."""

    order_id: str


class MealAnswer(Answer):
    """What becomes of an order."""

    order_id: str
    outcome: str
    reason: str | None = None


class Done(Answer):
    """The same for what services ask of each other; ``None`` where there was nothing to say it of."""

    order_id: str | None
    outcome: str


class OrderMeal(Command[MealAnswer], service="app", key="order_id", public=True):
    """A guest orders."""

    order_id: str
    zone: str
    food: int
    tip: int


class SendCouriers(Command[Done], service="couriers", key="zone", public=True):
    """Couriers begin to work."""

    zone: str
    count: int


class Charge(Command[Done], service="till", key="order_id"):
    """Take the money for something."""

    order_id: str
    what: str
    amount: int


class Refund(Command[Done], service="till", key="order_id"):
    """Give all of it back, and take no more."""

    order_id: str


class FindCourier(Command[Done], service="couriers", key="zone", story="order_id"):
    """Answered when there is one, or when the search is over."""

    zone: str
    order_id: str


class StopSearch(Command[Done], service="couriers", key="zone", story="order_id"):
    """Nobody needs a courier any more, unless one was found."""

    zone: str
    order_id: str


class Cook(Command[Done], service="kitchen", key="order_id"):
    """Cook it."""

    order_id: str
