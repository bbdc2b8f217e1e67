"""Given the benchmark of the log itself in its smallest settings, then it measures, beside what peers are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks import catalog
from benchmarks.backbone import Backbone, _sum
from benchmarks.backbone_loads import envelope, prices, thin, together
from benchmarks.peers import redis_streams
from eventmesh.lab.progress_bar import silent
from tests.benchmarks.conftest import CONFIGS

pytestmark = pytest.mark.timeout(180)
installed = pytest.mark.skipif(redis_streams.missing() is not None, reason=str(redis_streams.missing()))
SMALL: dict[str, Any] = {
    "append": {"rows": {"thin": 5_000, "envelope": 2_000}, "single_rows": 1_000},
    "events": {"count": 60, "warmup": 10, "rate": 200, "consumers": [2], "targets_ms": {2: "<1000"}},
    "deliveries": {"rows": 40_000, "consumers": 2, "target": ">=1"},
    "view": {"keys": 1_000, "lookups": 5_000, "rebuilt": 3_000},
    "memory": {"gigabytes": 0.01, "target": "<1000"},
    "repetitions": 1,
}


def small() -> Backbone:
    loaded = catalog.load(CONFIGS / "benchmarks", "backbone", quick=False)
    settings = loaded.settings.model_dump(by_alias=True)  # type: ignore[attr-defined]
    for part, values in SMALL.items():
        settings[part] = {**settings[part], **values} if isinstance(values, dict) else values
    return Backbone(Backbone.settings_type.model_validate(settings), quick=True, meshes=CONFIGS / "meshes")


def test_every_part_is_measured_and_the_raw_samples_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    run = small().run(tmp_path / "run", seed=0, report=silent, say=said.append)
    assert run.status == "complete"
    figures = {each.name: each for each in run.figures}
    ours = [name for name in figures if name.endswith("eventmesh") or "view" in name or "memory" in name]
    assert len(ours) == 7
    assert all((figures[name].value or 0) > 0 for name in figures)
    assert figures["single events at 200/s to 2 consumers, p50, eventmesh"].met
    kept = next((tmp_path / "run" / "records").glob("events-eventmesh*.arrow"))
    with pa.memory_map(str(kept)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    assert table.num_rows == 60
    received, sent = table["received_at_1"].to_numpy(), table["sent_at"].to_numpy()
    assert (received > sent).all()
    if redis_streams.missing() is None:
        assert any("Redis Streams with a message each" in name for name in figures)
    else:
        assert said[0].startswith("Redis Streams is not measured: ")
        assert not any("Redis" in name for name in figures)
    assert not (tmp_path / "run" / "work").exists()


def test_a_peer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        redis_streams, "missing", lambda: "redis-server is not installed (apt-get install redis-server)"
    )
    assert small().describe()[-1] == (
        "Redis Streams is not measured: redis-server is not installed (apt-get install redis-server)"
    )


@installed
def test_the_server_of_a_peer_ends_with_its_measurement(tmp_path: Path) -> None:
    with redis_streams.server(tmp_path / "redis") as address:
        client = redis_streams._client(address)
        assert client.ping()
        client.close()
    client = redis_streams._client(address)
    with pytest.raises(Exception, match="refused"):
        client.ping()
    client.close()


def test_rows_have_the_shapes_that_are_named() -> None:
    rows = thin(1_000)
    assert sum(column.nbytes for column in rows.columns) == 34 * 1_000  # 8, 8, and 14 with an offset of 4
    full = envelope(10)
    assert [name for name in full.schema.names if full[name].null_count] == []
    assert len(set(prices(10, first=5)["sku"].to_pylist())) == 10


def test_sums_are_those_of_the_rows_that_were_sent() -> None:
    batches = [thin(10, 0), thin(10, 10)]
    assert _sum(batches, 10) == sum(range(10))
    assert _sum(batches, 50) == 2 * sum(range(20)) + sum(range(10))


def _breaks(barrier: Any) -> None:
    barrier.wait()
    raise ValueError("broken on purpose")


def test_a_process_that_breaks_ends_the_measurement_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match="broken on purpose"):
        together([(_breaks, {}), (_breaks, {})])
