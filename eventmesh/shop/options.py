"""The options that a mesh file may give each of the shop's services."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from eventmesh.configuration import no_effect

#: Ten years; it is counted in microseconds of 64 bits, added to the time of day.
MEMORY_S_MAX = 10 * 365 * 24 * 3_600
#: More than any memory holds, at about a kilobyte each: whoever wants no limit can say so.
OPEN_ORDERS_MAX = 2**31 - 1
#: Units of one SKU; a stock level of 64 bits then holds nine billion deliveries.
UNITS_MAX = 1_000_000_000


#: Seconds that a finished order or command id is remembered where nothing else is said.
MEMORY_S = 3_600


class Options(BaseModel):
    """What the services of the shop understand that remember what is finished."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    memory_s: int = Field(
        default=MEMORY_S,
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
        default=False,
        description="In the request wiring, orders commands inventory to check whether to buy more.",
        json_schema_extra={"wirings": ["request"]},
    )
    reservation_s: float | None = Field(
        default=None,
        gt=0,
        le=MEMORY_S_MAX,
        description="Seconds in which a reserved order must be paid, or it is cancelled; null: however long it takes.",
    )
    batched: bool = Field(
        default=False,
        description="Remote queries of one step travel as one message.",
        json_schema_extra={"wirings": ["request", "hybrid"]},
    )


class Restock(BaseModel):
    """Inventory's own rule for buying more."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    below: int = Field(ge=1, le=UNITS_MAX, description="Buys more of a SKU of which fewer units are free.")
    quantity: int = Field(ge=1, le=UNITS_MAX, description="How many units it buys then.")


class InventoryOptions(Options):
    """Stock."""

    initial: Literal["demand"] = Field(
        default="demand", description="demand: each SKU starts with its total demand in the run."
    )
    restock: Restock | None = None

    @field_validator("initial", mode="before")
    @classmethod
    def _is_brought_in(cls, initial: object) -> object:
        if initial == "none":
            problem = "does nothing: what stock begins with is brought in by the run"
            raise no_effect(problem, "Leave the key out, and run with --stock-fraction 0")
        return initial


class PaymentsOptions(Options):
    """The card company."""

    decline_permille: int = Field(default=0, ge=0, le=1000, description="Payments in a thousand that are declined.")


class TableOptions(BaseModel):
    """A service that forgets no key, and remembers which commands it has done for :data:`MEMORY_S`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _forgets_nothing(cls, options: Any) -> Any:
        """Files that were stored with every default filled in have the memory of the other services."""
        if not isinstance(options, dict) or "memory_s" not in options:
            return options
        if options["memory_s"] != MEMORY_S:
            problem = f"does nothing: this service forgets no value, found {options['memory_s']!r}"
            raise no_effect(problem, "Leave the key out", key="memory_s")
        return {name: value for name, value in options.items() if name != "memory_s"}


class SourceOptions(TableOptions):
    """A service whose facts come from the run's own data."""

    source: Literal["seed"] = "seed"
