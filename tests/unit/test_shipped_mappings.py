"""Given a small file of each kind that a mapping is shipped for, then its orders are those that the shop had."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventmesh.shop.order_file import read_orders
from eventmesh.shop.order_mapping import OrderMapping
from tests.unit.order_story import ROOT, lines_of, reasons, text_file

MAPPINGS = ROOT / "configs" / "mappings"

SHOPIFY = """\
Name,Email,Financial Status,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,\
Shipping Country,Notes
#1001,ann@example.org,paid,EUR,53.90,2024-10-07 09:50:26 +0200,3,"Mask, large",12.90,MASK-L,FR,"Ring ""twice"",
leave at door"
#1001,ann@example.org,,,,,1,Brush,15.20,BRUSH,,
#1002,bob@example.org,paid,EUR,10.00,2024-10-07 10:50:26 +0200,1,Soap,10.00,,FR,
#1003,,refunded,EUR,9.00,2024-10-07 11:50:26 +0200,1,Soap,9.00,SOAP,FR,
"""
MARKETPLACE = """\
amazon-order-id\tpurchase-date\torder-status\tproduct-name\tsku\tquantity\tcurrency\titem-price\tship-country
111-1\t2026-04-10T09:00:00+00:00\tShipped\t"Dune poster, A3\tDUNE\t3\tEUR\t29.90\tDE
111-2\t2026-04-10T09:01:00+00:00\tShipped\tPoster\tPST\t1\tEUR\t9.90\tDE
111-2\t2026-04-10T09:01:00+00:00\tCancelled\tPoster\tPST\t0\tEUR\t\tDE
111-3\t2026-04-10T09:02:00+00:00\tShipped\tFrame 12"\tFRM\t2\tEUR\t9.00\tDE
"""


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_mapping_is_one(path: Path) -> None:
    assert OrderMapping.load(path).columns()


def test_orders_of_shopify(tmp_path: Path) -> None:
    found = read_orders(text_file(tmp_path, SHOPIFY), OrderMapping.load(MAPPINGS / "shopify.yaml"))
    assert found.requests["order_id"].to_pylist() == ["#1001", "#1003"]
    assert lines_of(found) == [("MASK-L", 3, 1290), ("BRUSH", 1, 1520)]
    assert found.requests["amount"].to_pylist() == [5390, 900]
    assert found.requests["customer_id"].to_pylist() == ["ann@example.org", None]
    assert found.requests["ordered_at"][0].as_py() == datetime(2024, 10, 7, 7, 50, 26, tzinfo=UTC)
    assert reasons(found) == [(3, "sku missing")]


def test_orders_of_a_marketplace(tmp_path: Path) -> None:
    found = read_orders(text_file(tmp_path, MARKETPLACE), OrderMapping.load(MAPPINGS / "marketplace.yaml"))
    assert found.requests["order_id"].to_pylist() == ["111-1", "111-2", "111-3"]
    assert lines_of(found) == [("DUNE", 1, 996), ("DUNE", 2, 997)]
    assert found.requests["amount"].to_pylist() == [2990, 990, 900]
    assert reasons(found) == [(3, "quantity not positive")]
    assert found.summary()["incomplete"] == 1
