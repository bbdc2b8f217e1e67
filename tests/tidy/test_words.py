"""The framework speaks no application's words: what it says of orders and stock would be wrong of a library's loans."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

#: Words of the shop that nothing else in the framework is called. (``order`` alone also means a sequence.)
SHOP = re.compile(
    r"[Oo]rders|order_id|order-id|[Ss]tock|[Cc]ustomer|sku|list_price|[Cc]onfirmed|[Rr]ejected|[Gg]ateway|[Ii]nventory|"
    r"[Ss]hipment|[Hh]ybrid|PlaceOrder",
)
#: A key of ``run.json`` that older files have: it is read, and never written.
ALLOWED = {("eventmesh/report/record.py", "cpu_s_per_1000_orders")}


def spoken(source: str) -> Iterator[str]:
    """Every name and every text of a module, but for what its docstrings and comments give as examples."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(word := getattr(node, field, None), str):
                yield word


def of_the_shop(words: Iterator[str]) -> list[str]:
    return sorted({word for word in words if SHOP.search(word)})


def test_no_module_of_the_framework_has_a_word_of_the_shop(files: dict[str, str]) -> None:
    modules = {
        path: text
        for path, text in files.items()
        if path.startswith("eventmesh/") and path.endswith(".py") and not path.startswith("eventmesh/shop/")
    }
    assert len(modules) > 100
    found = {(path, word) for path, text in modules.items() for word in of_the_shop(spoken(text))}
    assert found - ALLOWED == set()
    assert found >= ALLOWED, "take out what is allowed and does not occur any more"


def test_no_template_of_a_report_has_one(files: dict[str, str]) -> None:
    templates = {path: text for path, text in files.items() if path.endswith(".jinja")}
    assert len(templates) > 4
    words = {path: of_the_shop(iter(re.findall(r"\w+", text))) for path, text in templates.items()}
    assert {path: each for path, each in words.items() if each} == {}


def test_a_word_of_the_shop_would_be_found() -> None:
    source = 'class A:\n    """Of orders/0."""\n    stock_fraction: float = 1\n    said = f"{1} orders/s"\n'
    assert of_the_shop(spoken(source)) == [" orders/s", "stock_fraction"]
