"""The options that a mesh file may give each of the shop's services."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: Ten years; it is counted in microseconds of 64 bits, added to the time of day.
MEMORY_S_MAX = 10 * 365 * 24 * 3_600
#: More than any memory holds, at about a kilobyte each: whoever wants no limit can say so.
OPEN_ORDERS_MAX = 2**31 - 1
#: Units of one SKU; a stock level of 64 bits then holds nine billion deliveries.
UNITS_MAX = 1_000_000_000


class Options(BaseModel):
    """What every service of the shop understands."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    memory_s: int = Field(
        default=3_600,
        ge=1,
        le=MEMORY_S_MAX,
        description="Seconds that a finished order or command id is remembered at least.",
    )

    @property
    def memory_us(self) -> int:
        """The same, in microseconds."""
        return self.memory_s * 1_000_000


class GatewayOptions(Options):
    """The front door."""

    open_orders_max: int = Field(
        default=20_000, ge=1, le=OPEN_ORDERS_MAX, description="More open orders per partition are throttled."
    )


class OrdersOptions(Options):
    """Orders and what it joins."""

    joins: list[Literal["customers", "prices", "stock"]] = Field(
        default=["customers", "prices", "stock"], description="What an order is enriched and checked with."
    )
    commands_restock: bool = Field(
        default=False, description="In the request wiring, orders commands inventory to check whether to buy more."
    )
    batched: bool = Field(default=False, description="Remote queries of one step travel as one message.")


class Restock(BaseModel):
    """Inventory's own rule for buying more."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    below: int = Field(ge=1, le=UNITS_MAX, description="Buys more of a SKU of which fewer units are free.")
    quantity: int = Field(ge=1, le=UNITS_MAX, description="How many units it buys then.")


class InventoryOptions(Options):
    """Stock."""

    initial: Literal["demand", "none"] = Field(
        default="demand", description="demand: each SKU starts with its total demand in the run."
    )
    restock: Restock | None = None


class PaymentsOptions(Options):
    """The card company."""

    decline_permille: int = Field(default=0, ge=0, le=1000, description="Payments in a thousand that are declined.")


class SourceOptions(Options):
    """A service whose facts come from the run's own data."""

    source: Literal["seed"] = "seed"
