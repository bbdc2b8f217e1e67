"""E10 and E11: what orders joined, and what it decided on that, against the log by SQL.

A version names one fact of the joined topic, so every joined value can be looked up again. How fresh a
version had to be follows from what its reader had read: for a local view the positions that the append
before says it had reached; for a remote query what was appended before the order was asked for. How
fresh it can have been, too: for a view the positions of the append itself, for a query its answer's time.

Nothing here is shared with the code that joins: keys, values and topics are named once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmesh.audit.evidence import Evidence, table_name
from eventmesh.audit.verdict import EXAMPLES_MAX, CheckResult, Findings
from eventmesh.progress import split_position
from eventmesh.shop.stories import REQUESTED, STATES, stories

_LINES = """SELECT partition, "offset", append, time, order_id, unnest(lines) AS line, unnest(joined_lines) AS joined
    FROM orders WHERE type = 'OrderValidated'"""
#: What an order says it joined: key, version and value per look-up.
_JOINED = {
    "customers": """SELECT partition, "offset", append, time, order_id, customer_id AS key, customer_version AS version,
        customer_country AS value FROM orders WHERE type = 'OrderValidated'""",
    "prices": f"""SELECT partition, "offset", append, time, order_id, line.sku AS key, joined.price_version AS version,
        joined.list_price AS value FROM ({_LINES})""",
    "stock": f"""SELECT partition, "offset", append, time, order_id, line.sku AS key, joined.stock_version AS version,
        joined.available AS value FROM ({_LINES})""",
}
#: The same values as their owner published them.
_KEYS = {"customers": "customer_id", "prices": "sku", "stock": "sku"}
_VALUES = {"customers": "country", "prices": "list_price", "stock": "on_hand - reserved"}
#: What is asked for them where there is no view.
_QUERIES = {"customers": "CustomerById", "prices": "PriceBySku", "stock": "StockBySku"}
_NO_VECTORS = pa.schema(
    [
        *(pa.field(name, pa.int64()) for name in ("partition", "append", "number", "before", "at")),
        pa.field("topic", pa.string()),
    ]
).empty_table()


@dataclass(frozen=True)
class Join:
    """One join of the mesh: ``topics`` hold the values, weakest first; ``local`` where a view answers.

    ``kept_us``: so old a remote answer may be when it is used, by the mesh file; 0 where none is used twice.
    """

    name: str
    topics: list[str]
    local: bool
    kept_us: int

    @property
    def source(self) -> str:
        """SQL: every published value, with topic, key, offset and append time."""
        key, value = _KEYS[self.name], _VALUES[self.name]
        return " UNION ALL ".join(
            f"""SELECT '{topic}' AS topic, {key} AS key, partition, "offset", appended_at, {value} AS value
            FROM {table_name(topic)} WHERE {key} IS NOT NULL"""
            for topic in self.topics
        )


def _joins(evidence: Evidence) -> list[Join]:
    mesh = evidence.mesh
    views = mesh.services["orders"].views
    joined = getattr(mesh.options["orders"], "joins", ())
    # What is asked is its topic's owner.
    return [Join(name, views.get(name, [name]), name in views, _kept_us(evidence, name)) for name in joined]


def _kept_us(evidence: Evidence, name: str) -> int:
    mesh = evidence.mesh
    cache = mesh.policy("orders", mesh.application.DECLARED.messages[_QUERIES[name]]).cache
    return 0 if cache is None else cache.age_max_us


def joined_values(evidence: Evidence) -> CheckResult:
    """E11: each joined value is the value at the version that the fact names; no join was left out."""
    findings = Findings("E11", "each joined value in a fact is the value at the version the fact names")
    validated = evidence.facts("orders").of("OrderValidated")
    joins = _joins(evidence)
    if not validated.any() or not joins:
        findings.has_none("no order was validated" if joins else "the mesh joins nothing")
        return findings.result()
    sql = evidence.sql
    sql.register("vectors", _views_read(evidence))
    for join in joins:
        created = sql.execute(f"CREATE OR REPLACE TEMP TABLE joined AS {_JOINED[join.name]}").fetchall()
        sql.execute(f"CREATE OR REPLACE TEMP TABLE source AS {join.source}")
        findings.examined += created[0][0]
        _wrong_values(sql, join, findings)
        if join.local:
            _older_than_read(evidence, join, findings)
            _newer_than_read(evidence, join, findings)
        else:
            _older_than_asked(evidence, join, findings)
            _newer_than_answered(sql, join, findings)
    _one_answer_per_line(evidence, joins, findings)
    _joined_for_another(sql, findings)
    return findings.result()


def _flag(sql: Any, query: str, what: str, findings: Findings) -> None:
    """``query`` selects partition, offset, key, version, value and expected of each violation."""
    rows = sql.execute(query).fetchall()
    for partition, offset, key, version, value, expected in rows[:EXAMPLES_MAX]:
        findings.flag(f"orders/{partition}@{offset}: {what} {key!r} at version {version} as {value}; {expected}")
    findings.violations += max(0, len(rows) - EXAMPLES_MAX)


def _wrong_values(sql: Any, join: Join, findings: Findings) -> None:
    query = """
        SELECT partition, "offset", key, version, value, 'the log has no such value there' FROM joined j
        WHERE version IS NULL OR version < -1 OR (version = -1 AND value IS NOT NULL) OR (version >= 0 AND NOT EXISTS (
            SELECT 1 FROM source s
            WHERE s.key = j.key AND s."offset" = j.version AND s.value IS NOT DISTINCT FROM j.value))
        ORDER BY partition, "offset" """
    _flag(sql, query, join.name, findings)


def _older_than_read(evidence: Evidence, join: Join, findings: Findings) -> None:
    """A view never answers with less than it had read when the append before was sent."""
    older = 'b.version < s."offset"' if len(join.topics) == 1 else "b.version < 0"
    query = f"""
        SELECT b.partition, b."offset", b.key, b.version, b.value, 'the view had read ' || s.topic || '@' || s."offset"
        FROM (
            SELECT j.*, home.topic, v.before FROM joined j
            JOIN (SELECT DISTINCT topic, key, partition FROM source) home ON home.key = j.key
            JOIN vectors v ON v.partition = j.partition AND v.append = j.append
                AND v.topic = home.topic AND v.number = home.partition
        ) b ASOF JOIN source s ON s.topic = b.topic AND s.key = b.key AND b.before > s."offset"
        WHERE {older} ORDER BY b.partition, b."offset" """
    _flag(evidence.sql, query, join.name, findings)


def _newer_than_read(evidence: Evidence, join: Join, findings: Findings) -> None:
    """Nor with more than it had read when this append was sent."""
    query = """
        SELECT j.partition, j."offset", j.key, j.version, j.value,
            'the view had only read up to ' || max(coalesce(v."at", 0))
        FROM joined j JOIN source s ON s.key = j.key AND s."offset" = j.version
        LEFT JOIN vectors v ON v.partition = j.partition AND v.append = j.append
            AND v.topic = s.topic AND v.number = s.partition
        GROUP BY ALL HAVING bool_and(j.version >= coalesce(v."at", 0)) ORDER BY j.partition, j."offset" """
    _flag(evidence.sql, query, join.name, findings)


def _views_read(evidence: Evidence) -> pa.Table:
    """How far the views of orders had read at each of its appends, and at the one before it."""
    parts = []
    for log in evidence.partitions("orders"):
        places = [place for place, header in enumerate(log.headers) if header.kind in ("facts", "progressed")]
        vectors = [log.headers[place].progress.get("views", {}) for place in places]
        for name in sorted({name for vector in vectors for name in vector}):
            topic, number = split_position(name)
            at = np.array([vector.get(name, 0) for vector in vectors], np.int64)
            parts.append(
                pa.table(
                    {
                        "partition": np.full(len(at), log.number),
                        "append": np.array(places, np.int64),
                        "topic": pa.repeat(topic, len(at)),
                        "number": np.full(len(at), number),
                        "before": np.append(0, at[:-1]),
                        "at": at,
                    }
                )
            )
    return pa.concat_tables(parts) if parts else _NO_VECTORS


def _older_than_asked(evidence: Evidence, join: Join, findings: Findings) -> None:
    """The owner knows what it had appended before the order was even asked for, or when a cached answer was asked."""
    story = stories(evidence)
    asked = """SELECT order_id, min(epoch_us(time)) AS moment FROM order_requests
        WHERE type = 'OrderRequested' GROUP BY 1"""
    if story.by_command:
        asked = "SELECT key AS order_id, min(sent_at) AS moment FROM callers WHERE command = 'PlaceOrder' GROUP BY 1"
    since = f", {join.kept_us / 1e6:g} s before that" if join.kept_us else ""
    query = f"""
        SELECT b.partition, b."offset", b.key, b.version, b.value,
            'version ' || s.newest || ' was published at ' || s.appended_at || ', before it was asked for{since}'
        FROM (
            SELECT j.*, a.moment - {join.kept_us} AS moment FROM joined j JOIN ({asked}) a ON a.order_id = j.order_id
        ) b ASOF JOIN (SELECT key, appended_at, max("offset") AS newest FROM source GROUP BY 1, 2) s
            ON s.key = b.key AND b.moment > s.appended_at
        WHERE b.version < s.newest ORDER BY b.partition, b."offset" """
    _flag(evidence.sql, query, join.name, findings)


def _newer_than_answered(sql: Any, join: Join, findings: Findings) -> None:
    """Answers show what was acknowledged before (rule 2): never what was appended after the order was validated."""
    query = """
        SELECT j.partition, j."offset", j.key, j.version, j.value, 'published only at ' || min(s.appended_at)
        FROM joined j JOIN source s ON s.key = j.key AND s."offset" = j.version
        GROUP BY ALL HAVING bool_and(s.appended_at > epoch_us(j.time)) ORDER BY j.partition, j."offset" """
    _flag(sql, query, join.name, findings)


def _joined_for_another(sql: Any, findings: Findings) -> None:
    """What is joined is what was asked for: the order's own customer and lines, where its request is in the log."""
    query = """
        SELECT v.partition, v."offset", v.order_id, v.customer_id, r.customer_id, v.lines = r.lines
        FROM orders v JOIN order_requests r ON r.order_id = v.order_id AND r.type = 'OrderRequested'
        WHERE v.type = 'OrderValidated'
            AND (v.customer_id IS DISTINCT FROM r.customer_id OR v.lines IS DISTINCT FROM r.lines)
        ORDER BY v.partition, v."offset" """
    for partition, offset, order, customer, asked, same_lines in sql.execute(query).fetchall():
        lines = "the same lines" if same_lines else "other lines"
        findings.flag(f"orders/{partition}@{offset}: order {order} for {customer}, asked for by {asked}, with {lines}")


def _one_answer_per_line(evidence: Evidence, joins: list[Join], findings: Findings) -> None:
    if not {"prices", "stock"} & {join.name for join in joins}:
        return
    orders = evidence.facts("orders")
    lines = pc.fill_null(pc.list_value_length(orders.column("lines")), 0)
    answers = pc.fill_null(pc.list_value_length(orders.column("joined_lines")), 0)
    unlike = pc.not_equal(lines, answers).to_numpy(zero_copy_only=False) & orders.of("OrderValidated")
    findings.flag_where(unlike, lambda i: f"{orders.say(i)}: {lines[i]} lines, {answers[i]} of them joined")


# --- E10 --------------------------------------------------------------------------------------------

_OUT_OF_STOCK = "out of stock"
#: Orders refused at validation, all of whose products the log shows to have been there at that time.
_REFUSED_WRONGLY = f"""
    WITH refused AS (
        SELECT order_id, min(epoch_us(time)) AS moment FROM orders
        WHERE type = 'OrderRejected' AND starts_with(reason, '{_OUT_OF_STOCK}') GROUP BY 1
    ), wanted AS (
        SELECT order_id, moment, line.sku AS sku, sum(line.quantity) AS quantity FROM (
            SELECT r.order_id, r.moment, unnest(q.lines) AS line FROM refused r
            JOIN order_requests q ON q.order_id = r.order_id AND q.type = 'OrderRequested'
            WHERE r.order_id NOT IN (SELECT order_id FROM orders WHERE type = 'OrderValidated')
        ) GROUP BY ALL
    ), levels AS (
        SELECT sku, epoch_us(time) AS moment, max_by(on_hand - reserved, "offset") AS available
        FROM stock WHERE sku IS NOT NULL GROUP BY ALL
    )
    SELECT order_id FROM wanted w ASOF LEFT JOIN levels s ON s.sku = w.sku AND w.moment >= s.moment
    GROUP BY order_id HAVING bool_and(coalesce(s.available, 0) >= w.quantity) ORDER BY order_id"""


def wrong_decisions(evidence: Evidence) -> CheckResult:
    """E10: refused although there was stock, or validated and then found short. Counted, never a violation.

    Orders refused at validation in a wiring where requests are commands leave no request in the log; those
    are not examined.
    """
    findings = Findings("E10", "wrong decisions, made on stock that was out of date (counted, not a violation)")
    story = stories(evidence)
    rows, order, _, before = story.steps
    reasons = story.orders.column("reason").take(pa.array(rows))
    short = pc.fill_null(pc.starts_with(reasons, _OUT_OF_STOCK), False).to_numpy(zero_copy_only=False)
    at_validation = short & (before == STATES.index(REQUESTED))
    later = short & (before == STATES.index("validated"))
    findings.examined = int(np.count_nonzero(story.moved))
    if any(join.name == "stock" for join in _joins(evidence)):
        findings.flag_where(later, lambda i: f"order {story.name(order[i])}: validated, then found short")
        if at_validation.any():
            for (order_id,) in evidence.sql.execute(_REFUSED_WRONGLY).fetchall():
                findings.flag(f"order {order_id}: refused, though the log shows that there was stock")
    result = findings.result()
    return CheckResult(result.id, result.title, "valid", result.examined, result.violations, result.examples)
