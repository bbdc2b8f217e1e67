"""Given the shape of a view, then it fits the topics that a mesh file gives it, or is refused when the file is read."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml

import tests.market
from eventmesh import mesh as meshes
from eventmesh.declared import Answer, Declared, Query, stored_schema
from eventmesh.errors import ConfigurationError
from eventmesh.joins import RemoteJoin
from eventmesh.mesh import Mesh
from eventmesh.messages import topic_schema
from eventmesh.service import Trigger
from eventmesh.views import Count, Max, Min, Sum, Top, ViewShape, Where
from tests.market.stalls import Sell

MARKET = Path(__file__).parents[1] / "market" / "mesh.yaml"
#: Columns beside those of the market's sales, whatever a view can make of them.
ODD = [
    pa.field("picture", pa.binary()), pa.field("price", pa.decimal128(9, 2)), pa.field("tags", pa.list_(pa.string())),
    pa.field("lines", pa.list_(pa.struct([("sku", pa.string()), ("pieces", pa.int64())]))),
]  # fmt: skip


def with_schemas(**schemas: pa.Schema) -> Declared:
    """What the market declares, with other columns of some topics."""
    declared = copy(tests.market.DECLARED)
    declared.schemas = {**declared.schemas, **schemas}
    return declared


def read(shape: Any, *, topics: tuple[str, ...] = ("sales",), **parts: Any) -> Mesh:
    """The market's mesh with this one view."""
    document = yaml.safe_load(MARKET.read_text())
    document["services"]["board"]["views"] = {"seen": list(topics)}
    known = {name: getattr(tests.market, name) for name in tests.market.__all__}
    sales = topic_schema([*stored_schema(Sell), *ODD])
    wirings = {"events": {**known["WIRINGS"]["events"], "board": Trigger({}, reads=["seen"])}}
    package = SimpleNamespace(**{
        **known, "VIEWS": {"seen": shape}, "WIRINGS": wirings, "DECLARED": with_schemas(sales=sales), **parts,
    })  # fmt: skip
    return meshes.parse(document, file="market.yaml", package=package)


def refused(shape: Any, **how: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(shape, **how)
    assert (caught.value.file, caught.value.path) == ("market.yaml", "services.board.views.seen")
    return str(caught.value).partition("services.board.views.seen: ")[2]


@pytest.mark.parametrize(
    "shape",
    [
        ViewShape("sale"),
        ViewShape("floor", ("sale",)),
        ViewShape(("customer", "floor", "type"), ("lines", "tags", "picked", "organic", "weight")),
        ViewShape("customer", (Count(), Sum("amount"), Min("picked"), Max("weight"), Max("product"), "amount")),
        ViewShape("customer", (Top(1000, "picked", ("lines",)), Top(1, "picked"), Top(1, "weight", smallest=True))),
        ViewShape("customer", rows=("floor", "sale"), remove_where=(Where("type", "=", "Voided"),)),
        ViewShape("sale", where=(Where("picture", "is null"), Where("tags", "is not null"))),
        ViewShape("sale", where=(Where("weight", ">", 1), Where("organic", "!=", False), Where("floor", "in", [1, 2]))),
        ViewShape("sale", where=(Where("picked", ">=", 1_600_000_000_000_000), Where("product", "<", "m"))),
        ViewShape("source", (Count(),), ("InputRefused",)),
    ],
)
def test_a_shape_that_fits_is_taken(shape: ViewShape) -> None:
    assert read(shape).services["board"].views == {"seen": ["sales"]}


KINDS = "names of columns, Count(), Sum(...), Min(...), Max(...) or Top(...)"
BUILT: list[tuple[Any, str]] = [
    (("sale", ("amount",)), "VIEWS['seen'] is ('sale', ('amount',)). Write ViewShape(KEY, COLUMNS)"),
    (ViewShape(()), "VIEWS['seen'].key: found (), expected the name of a column, or a tuple of names. Write "
                    'key="COLUMN" or key=("COLUMN", "COLUMN")'),
    (ViewShape(["sale"]), "VIEWS['seen'].key: found ['sale'], expected the name of a column"),
    (ViewShape("customer", rows=("sale", 3)), "VIEWS['seen'].rows: found ('sale', 3), expected the name of a column"),
    (ViewShape("sale", "amount"), f"VIEWS['seen'].columns: found 'amount', expected a tuple of {KINDS}. Write "
                                  "columns=('amount',)"),
    (ViewShape("sale", ["amount"]), f"found ['amount'], expected a tuple of {KINDS}. Write columns=('amount',)"),
    (ViewShape("sale", (Count,)), f"VIEWS['seen'].columns[0]: found {Count!r}. Expected: {KINDS}"),
    (ViewShape("sale", (), "Sold"), "VIEWS['seen'].types: found 'Sold', expected a tuple of types of fact. Write "
                                    "types=('Sold',)"),
    (ViewShape("sale", where=Where("amount", ">", 3)), "VIEWS['seen'].where: found Where(column='amount'"),
    (ViewShape("sale", where=(("amount", ">", 3),)), "VIEWS['seen'].where[0]: found ('amount', '>', 3). Expected: "
                                                     "conditions Where(...)"),
    (ViewShape(("sale", "sale")), "VIEWS['seen'].key and rows: 'sale' is named twice. Name it once"),
    (ViewShape("customer", rows="customer"), "VIEWS['seen'].key and rows: 'customer' is named twice"),
    (ViewShape("sale", ("amount", "amount")), "VIEWS['seen'].columns: 'amount' is named twice"),
    (ViewShape("sale", (Sum("amount"), Sum("amount"))), "VIEWS['seen'].columns: 'sum(amount)' is named twice"),
    (ViewShape("sale", (Count(),), remove_where=(Where("amount", "=", 3),)),
     "VIEWS['seen'].remove_where: removes what its key has, and an aggregate cannot forget: what came later would be "
     "gone as well. Keep a row each with rows=..., and add up what a look-up gives"),
    (ViewShape("sale", (Top(0, "amount"),)),
     "VIEWS['seen'].top(0, amount): has the limit 0: what is kept sorted for each key must have a bound. Write a limit "
     "from 1 to 1000; with rows=... all are kept"),
    (ViewShape("sale", (Top(None, "amount"),)), "VIEWS['seen'].top(None, amount): has the limit None"),
    (ViewShape("sale", (Top(1001, "amount"),)), "has the limit 1001"),
    (ViewShape("sale", (Top(True, "amount"),)), "has the limit True"),
]  # fmt: skip
OVER_TOPICS: list[tuple[Any, str]] = [
    (ViewShape("sail"), "unknown column of sales 'sail'. Did you mean 'sale'?"),
    (ViewShape("sale", rows="florr"), "unknown column of sales 'florr'. Did you mean 'floor'?"),
    (ViewShape("sale", (Sum("amout"),)), "unknown column of sales 'amout'. Did you mean 'amount'?"),
    (ViewShape("sale", (Top(3, "amount", ("produce",)),)), "'produce'. Did you mean 'product'?"),
    (ViewShape("sale", where=(Where("wait", ">", 3),)), "unknown column of sales 'wait'"),
    (ViewShape("sale", remove_where=(Where("tipe", "=", "Voided"),)), "'tipe'. Did you mean 'type'?"),
    (ViewShape("weight"), "the column 'weight' of sales is of type double. A key is of texts or whole numbers. Those "
                          "that sales has: sale, customer, product, amount, floor"),
    (ViewShape(("sale", "organic")), "the column 'organic' of sales is of type bool. A key is of texts"),
    (ViewShape("sale", ("picture",)), "VIEWS['seen'].columns: the column 'picture' of sales is of type binary. A view "
                                      "keeps texts, numbers, truth values, times, and lists and structs of them"),
    (ViewShape("sale", (Top(3, "amount", ("price",)),)), "the column 'price' of sales is of type decimal128(9, 2)"),
    (ViewShape("sale", (Sum("product"),)),
     "VIEWS['seen'].sum(product): the column 'product' of sales is of type string, and a sum is of whole numbers. "
     "Those that sales has: amount, floor"),
    (ViewShape("sale", (Sum("weight"),)), "of type double, and a sum is of whole numbers. Fractions add up to another "
                                          "sum in another order: count in smaller units. Those that sales has: amount"),
    (ViewShape("sale", (Min("organic"),)), "VIEWS['seen'].min(organic): the column 'organic' of sales is of type truth "
                                           "value, which has no order. Name a column of texts, numbers or times"),
    (ViewShape("sale", (Top(3, "lines"),)), "VIEWS['seen'].top(3, lines): the column 'lines' of sales is of type list"),
    (ViewShape("sale", (), ("Sould",)), "VIEWS['seen'].types: 'Sould' is no fact of sales. Did you mean 'Sold'?"),
    (ViewShape("sale", (), ("TakenBack",)), "VIEWS['seen'].types: 'TakenBack' is no fact of sales. Allowed: "
                                            "InputRefused, Repriced, Sold, TimerDue, Voided"),
]  # fmt: skip
CONDITIONS: list[tuple[Where, str]] = [
    (Where("amount", "=="), "unknown operator '=='. Did you mean '='? Allowed: !=, <, <=, =, >, >=, in, is not null, "),
    (Where("amount", ">", "dear"), "'amount' of sales is never 'dear'. Expected a whole number from -9223372036854775"),
    (Where("amount", ">", 1.5), "'amount' of sales is never 1.5"),
    (Where("amount", "=", True), "'amount' of sales is never True"),
    (Where("amount", "=", 2**63), f"'amount' of sales is never {2**63}"),
    (Where("floor", "in", (1, 2**31)), f"'floor' of sales is never {2**31}"),
    (Where("weight", "<", float("nan")), "'weight' of sales is never nan. Expected a number that is not NaN"),
    (Where("product", "=", 3), "'product' of sales is never 3. Expected a text that UTF-8 can hold"),
    (Where("organic", "=", "yes"), "'organic' of sales is never 'yes'. Expected True or False"),
    (Where("picked", "<", "2020-09-13"), "'picked' of sales is never '2020-09-13'. Expected a whole number of us"),
    (Where("amount", "=", None), "compares with None, which nothing is equal to. Write Where('amount', 'is null') or "
                                 "Where('amount', 'is not null')"),
    (Where("product", "not in", ("fig", None)), "compares with None"),
    (Where("amount", "is null", 3), "'is null' takes no value, found 3. Write Where('amount', 'is null')"),
    (Where("product", "in", "fig"), "'in' takes a tuple of values, found 'fig'. Name at least one"),
    (Where("product", "not in", ()), "'not in' takes a tuple of values, found ()"),
    (Where("organic", "<", True), "the column 'organic' of sales is of type bool, which has no order. Write '=' or"),
    (Where("tags", "=", "new"), "the column 'tags' of sales is of type list<item: string>, which is compared with "
                                "nothing. Write 'is null' or 'is not null'"),
    (Where("type", "=", "Soled"), "'Soled' is no fact of sales. Did you mean 'Sold'?"),
    (Where("type", "in", ("Sold", "Return")), "'Return' is no fact of sales. Allowed: InputRefused, Repriced"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "said"), [*BUILT, *OVER_TOPICS])
def test_one_that_does_not_is_told_with_its_place_and_what_to_write(shape: Any, said: str) -> None:
    assert said in refused(shape)


@pytest.mark.parametrize("place", ["where", "remove_where"])
@pytest.mark.parametrize(("condition", "said"), CONDITIONS)
def test_so_is_a_condition_that_no_fact_can_meet(place: str, condition: Where, said: str) -> None:
    shape = ViewShape("sale", ("amount",), **{place: (Where("sale", "is not null"), condition)})  # type: ignore[arg-type]
    assert refused(shape).startswith(f"VIEWS['seen'].{place}[1]: {said}")


def test_a_column_that_is_another_in_each_topic_is_no_key_and_has_no_order() -> None:
    other = [pa.field("sale", pa.int64()), pa.field("customer", pa.string()), pa.field("amount", pa.float64())]
    declared = with_schemas(returns=topic_schema(other))
    declared.topics = {**declared.topics, "returns": []}
    document = yaml.safe_load(MARKET.read_text())
    document["topics"]["returns"]["key"] = "customer"
    for shape, column in ((ViewShape("sale"), "sale"), (ViewShape("customer", (Max("amount"),)), "amount")):
        known = {name: getattr(tests.market, name) for name in tests.market.__all__}
        document["services"]["board"]["views"] = {"seen": ["sales", "returns"]}
        package = SimpleNamespace(**{**known, "DECLARED": declared, "VIEWS": {"seen": shape}})
        with pytest.raises(ConfigurationError, match=rf"the column '{column}' is in sales a .*, in returns a .*number"):
            meshes.parse(document, package=package)


# --- what follows from a shape -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spread"),
    [
        (ViewShape("sale"), ()), (ViewShape(("customer", "sale")), ()), (ViewShape("customer", rows="sale"), ()),
        (ViewShape("customer"), ("returns", "sales")), (ViewShape("customer", rows="product"), ("returns", "sales")),
    ],
)  # fmt: skip
def test_several_partitions_speak_of_a_key_that_has_not_the_topics_own_in_it(
    shape: ViewShape, spread: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = meshes.load(MARKET)
    monkeypatch.setattr(tests.market, "VIEWS", {**tests.market.VIEWS, "offers": shape})
    assert mesh.view("board", "offers").spread == spread
    document = yaml.safe_load(MARKET.read_text())
    document["topics"]["sales"]["partitions"] = 1
    alone = tuple(topic for topic in spread if topic != "sales")
    assert meshes.parse(document).view("board", "offers").spread == alone, "one partition has one order"


class PriceSeen(Answer):
    """What the owner says."""

    version: int
    amount: int | None
    count: int


class LastPrice(Query[PriceSeen], service="till"):
    """What a customer paid last."""

    customer: str
    product: str


def test_the_owner_can_be_asked_for_a_key_of_several_columns() -> None:
    join = RemoteJoin(LastPrice, ViewShape(("customer", "product"), ("amount", Count())))
    assert join.questions([("ann", "fig")]) == [LastPrice("ann", "fig")]
    assert join.read([PriceSeen(3, 20, 2)]) == [(3, 20, 2)]
    with pytest.raises(ValueError, match="the shape keeps many under 'customer'"):
        RemoteJoin(LastPrice, ViewShape("customer", ("amount",), rows="sale"))
