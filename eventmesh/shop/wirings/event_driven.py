"""What the event-driven wirings share: every step is triggered by a fact that somebody else published."""

from __future__ import annotations

from eventmesh.declared import Fact
from eventmesh.service import Rule, Trigger
from eventmesh.shop.facts import (
    CancellationRequested,
    CancelOrder,
    ListPrice,
    OrderCancelled,
    OrderCancelling,
    OrderConfirmed,
    OrderRejected,
    OrderReserved,
    OrderValidated,
    PaymentCaptured,
    PaymentDeclined,
    PlaceOrder,
    RegisterCustomer,
    RequestReturn,
    ReservationExpired,
    Restock,
    ShipmentDispatched,
    ShipmentRefused,
    StockReserved,
    StockShort,
)
from eventmesh.shop.gateway import Gateway
from eventmesh.shop.inventory import Inventory
from eventmesh.shop.orders import Orders
from eventmesh.shop.payments import Payments
from eventmesh.shop.shipping import Shipping
from eventmesh.shop.tables import Catalog, Customers

TABLES: dict[str, Trigger] = {
    "customers": Trigger({RegisterCustomer: Customers.publish}),
    "catalog": Trigger({ListPrice: Catalog.publish}),
}
#: All of orders but the validation, which is where the wirings differ.
ORDERS: dict[type[Fact], Rule] = {
    CancellationRequested: Orders.cancel,
    StockReserved: Orders.lines_answered,
    StockShort: Orders.lines_answered,
    PaymentCaptured: Orders.paid,
    PaymentDeclined: Orders.paid,
    ShipmentDispatched: Orders.dispatched,
    ShipmentRefused: Orders.shipment_refused,
    ReservationExpired: Orders.expire,
}
OTHERS: dict[str, Trigger] = {
    "gateway": Trigger(
        {
            PlaceOrder: Gateway.place_order,
            CancelOrder: Gateway.cancel_order,
            RequestReturn: Gateway.request_return,
            OrderConfirmed: Gateway.ended,
            OrderRejected: Gateway.ended,
            OrderCancelled: Gateway.ended,
        },
        reads=["outcomes"],
    ),
    "inventory": Trigger(
        {
            OrderValidated: Inventory.reserve_and_restock,
            OrderRejected: Inventory.release,
            OrderCancelled: Inventory.release,
            ShipmentDispatched: Inventory.ship,
            Restock: Inventory.restock,
        }
    ),
    "payments": Trigger({OrderReserved: Payments.capture, OrderCancelled: Payments.void}),
    "shipping": Trigger({OrderConfirmed: Shipping.dispatch, OrderCancelling: Shipping.refuse}),
    **TABLES,
}
