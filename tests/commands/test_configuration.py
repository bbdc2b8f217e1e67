"""Given a configuration with a mistake, then the command says where it is and what to write, and starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.commands.small_run import CONFIGS

VIEWS = (CONFIGS / "meshes" / "views.yaml").read_text()
MAPPING = (CONFIGS / "mappings" / "online-retail.yaml").read_text()
MISTAKES: dict[str, tuple[str, str, list[str]]] = {
    "an unknown key": (
        "stock: {owner: inventory, key: sku, partitions: 2,",
        "stock: {owner: inventory, key: sku, partitons: 2,",
        ["topics.stock.partitons", "unknown key 'partitons'", "Did you mean 'partitions'?"],
    ),
    "a wrong type": (
        "stock: {owner: inventory, key: sku, partitions: 2,",
        "stock: {owner: inventory, key: sku, partitions: two,",
        ["topics.stock.partitions", "must be a whole number", "found text 'two'"],
    ),
    "an unknown service": (
        "owner: payments",
        "owner: paymets",
        ["topics.payments.owner", "unknown service 'paymets'", "Did you mean 'payments'?"],
    ),
    "a service that is not described": (
        "  shipping: {listens: [orders]}\n",
        "",
        ["topics.shipments.owner", "no service 'shipping' is described", "Add 'shipping' to services"],
    ),
    "a service that is asked and not described": (
        "shipping: {listens: [orders]}",
        "shipping: {listens: [orders], asks: [invntory]}",
        ["services.shipping.asks[0]", "unknown service 'invntory'", "Did you mean 'inventory'?"],
    ),
    "two owners of one topic": (
        "  shipments: {owner: shipping,",
        "  shipments: {owner: orders, key: order_id}\n  shipments: {owner: shipping,",
        ["topics.shipments", "stands twice", "A topic has one owner"],
    ),
    "two topics of one owner": (
        "owner: shipping",
        "owner: payments",
        ["topics.shipments.owner", "'payments' owns 'payments' already", "Give this topic a service of its own"],
    ),
    "a listener of a topic that nobody has": (
        "shipping: {listens: [orders]}",
        "shipping: {listens: [order]}",
        ["services.shipping.listens[0]", "unknown topic 'order'", "Did you mean 'orders'?"],
    ),
    "more than one broker": (
        "brokers: 1",
        "brokers: 3",
        ["log.brokers", "found 3", "one broker is what there is: all partitions live in it", "Write brokers: 1"],
    ),
    "a package that cannot be run": (
        "application: eventmesh.shop",
        "application: eventmesh.shp",
        ["application", "'eventmesh.shp' cannot be imported", "Is it installed"],
    ),
    "orders that listen to nothing": (
        "    listens: [order-requests, stock, payments, shipments]\n",
        "",
        [
            "services.orders.listens: in wiring 'views' it acts on ",
            "and does not listen to it",
            "Write under services.orders: listens: [order-requests, stock, payments, shipments]",
        ],
    ),
    "payments that hear of no order": (
        "payments: {listens: [orders], ",
        "payments: {",
        [
            "services.payments.listens",
            "acts on OrderReserved, a fact of orders",
            "Write under services.payments: listens: [orders]",
        ],
    ),
    "a view that is not there": (
        "views: {stock: [stock], customers: [customers], prices: [prices, price-updates]}",
        "views: {stock: [stock], customers: [customers]}",
        [
            "services.orders.views: in wiring 'views' it reads the view 'prices', and has none",
            "Write under services.orders: views: {stock: [stock], customers: [customers], prices: [prices, price-upd",
        ],
    ),
    "a wiring that asks": (
        "wiring: views",
        "wiring: hybrid",
        [
            "services.orders.asks: in wiring 'hybrid' it sends CustomerById to customers, and does not ask it",
            "Write under services.orders: asks: [inventory, customers, catalog]",
        ],
    ),
    "no inventory": (
        "  inventory: {listens: [orders, shipments], initial: demand}\n",
        "",
        ["topics.stock.owner", "no service 'inventory' is described", "Write under services: inventory: {}"],
    ),
    "more partitions than anybody has": (
        "stock: {owner: inventory, key: sku, partitions: 2,",
        f"stock: {{owner: inventory, key: sku, partitions: {2**70},",
        ["topics.stock.partitions", "must be less than or equal to 1000, found number 1180591620717411303424"],
    ),
    "a topic that is to be compacted": (
        "cleanup.policy: delete, retention.ms: -1}",
        "cleanup.policy: compact}",
        [
            "topics.customers.cleanup.policy",
            "there is no compaction yet",
            "Write cleanup.policy: delete, with retention",
        ],
    ),
    "stock that begins with nothing": (
        "initial: demand",
        "initial: none",
        [
            "services.inventory.initial",
            "does nothing: what stock begins with is brought in by the run",
            "run with --sto",
        ],
    ),
    "a memory of what is never forgotten": (
        "customers: {source: seed}",
        "customers: {source: seed, memory_s: 60}",
        ["services.customers.memory_s", "does nothing: this service forgets no value, found 60", "Leave the key out"],
    ),
    "queries that nobody asks": (
        "    views: {stock:",
        "    batched: true\n    views: {stock:",
        ["services.orders.batched", "does nothing in wiring 'views', found bool true", "reads it: request, hybrid"],
    ),
    "no YAML": ("contexts: {}", "contexts: {", ["is not valid YAML", "line"]),
}


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["describe"]], ids=" ".join)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_mesh_file(eventmesh: Run, tmp_path: Path, mistake: str, command: list[str]) -> None:
    right, wrong, said = MISTAKES[mistake]
    assert right in VIEWS
    file = tmp_path / "mine.yaml"
    file.write_text(VIEWS.replace(right, wrong))
    eventmesh(*command, file).must_have_refused(file, *said)


def test_a_mesh_file_that_is_missing_suggests_its_neighbour(eventmesh: Run, tmp_path: Path) -> None:
    (tmp_path / "views.yaml").write_text(VIEWS)
    eventmesh("run", tmp_path / "view.yaml").must_have_refused("no such file", "Did you mean 'views.yaml'?")
    eventmesh("describe", tmp_path).must_have_refused(tmp_path, "cannot be read as text")


def test_an_application_that_has_no_workload_cannot_be_run(
    eventmesh: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventmesh import shop

    monkeypatch.delitem(shop._LATER, "workload")
    file = tmp_path / "mine.yaml"
    file.write_text(VIEWS)
    eventmesh("run", file).must_have_refused(f"{file}: application", "no workload", "Give it a function")
    assert eventmesh("describe", file).code == 0


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("country: Country", "contry: Country", ["contry", "unknown key 'contry'", "Did you mean 'country'?"]),
        ("decimals: 2", "decimals: many", ["unit_price.decimals", "must be a whole number, found text 'many'"]),
        ("order: InvoiceNo", "order: [InvoiceNo]", ["order", "must be text, found a list"]),
        ("sku: StockCode", "", ["the key 'sku' is missing"]),
        ("timezone: UTC", "timezone: Europe/Londn", ["timezone", "Did you mean 'Europe/London'?"]),
    ],
)
def test_a_mistake_in_a_mapping(eventmesh: Run, tmp_path: Path, right: str, wrong: str, said: list[str]) -> None:
    assert right in MAPPING
    mapping, data = tmp_path / "mapping.yaml", tmp_path / "sales.csv"
    mapping.write_text(MAPPING.replace(right, wrong))
    data.write_text("InvoiceNo\n1\n")
    words = ("run", CONFIGS / "meshes" / "views.yaml", "--input", data, "--mapping", mapping)
    eventmesh(*words).must_have_refused(mapping, *said)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("\nwindow_s: ", "\nwindows: ", ["windows", "unknown key 'windows'", "Did you mean 'window_s'?"]),
        ("\nwindow_s: ", "\nwindow_s: long ", ["window_s", "found text 'long"]),
        ("mesh: views, join: view", "mesh: view, join: view", ["ways[0].mesh", "Did you mean 'views'?"]),
    ],
)
def test_a_mistake_in_a_benchmark(eventmesh: Run, tmp_path: Path, right: str, wrong: str, said: list[str]) -> None:
    text = (CONFIGS / "benchmarks" / "join-scaling.yaml").read_text()
    assert right in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(right, wrong))
    eventmesh("bench", "run", file).must_have_refused(file, *said)
