"""Given the benchmark of the log itself in its smallest settings, then it measures, beside what peers are installed."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pydantic
import pytest

from benchmarks import backbone_log, backbone_query, backbone_start, catalog
from benchmarks.backbone import Backbone
from benchmarks.backbone_loads import THIN, Answers, envelope, prices, questions, thin, together
from benchmarks.backbone_log import sum_of
from benchmarks.peers import eventmesh_query, grpc_query, http_query, nats_jetstream, redis_streams
from benchmarks.peers.servers import in_process, packages_missing
from eventmesh.report.progress_bar import silent
from tests.benchmarks.conftest import CONFIGS

pytestmark = pytest.mark.timeout(180)
LOGS, ANSWERERS = backbone_log.PEERS, backbone_query.Query.peers
PEERS: dict[str, ModuleType] = {**LOGS, **ANSWERERS}
SMALL: dict[str, Any] = {
    "append": {"rows": {"thin": 5_000, "envelope": 2_000}, "single_rows": 1_000},
    "events": {"count": 60, "warmup": 10, "rate": 200, "consumers": [2], "targets_ms": {2: "<1000"}},
    "deliveries": {"rows": 40_000, "consumers": 2, "target": ">=1"},
    "query": {"keys": 100, "warmup": 10, "count": 40, "at_once": 4, "count_at_once": 60, "target_ms": "<1000"},
    "view": {"keys": 1_000, "lookups": 5_000, "rebuilt": 3_000},
    "start": None,
    "memory": {"gigabytes": 0.01, "target": "<1000"},
    "repetitions": 1,
}


def each(*systems: ModuleType) -> pytest.MarkDecorator:
    """Each system, but for the peers that are not installed."""
    return pytest.mark.parametrize("system", [_param(system) for system in systems])


def _param(system: ModuleType) -> Any:
    problem = system.missing() if system in PEERS.values() else None
    skip = pytest.mark.skipif(problem is not None, reason=str(problem))
    return pytest.param(system, id=system.__name__.rpartition(".")[2], marks=skip)


def small() -> Backbone:
    loaded = catalog.load(CONFIGS / "benchmarks", "backbone", quick=False)
    settings = loaded.settings.model_dump(by_alias=True)  # type: ignore[attr-defined]
    for part, values in SMALL.items():
        settings[part] = {**settings[part], **values} if isinstance(values, dict) else values
    return Backbone(Backbone.settings_type.model_validate(settings), quick=True, meshes=CONFIGS / "meshes")


@pytest.mark.timeout(300)  # seventy processes or so
def test_every_part_is_measured_and_the_raw_samples_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    run = small().run(tmp_path / "run", seed=0, report=silent, say=said.append)
    assert run.status == "complete"
    figures = {each.name: each for each in run.figures}
    ours = [name for name in figures if name.endswith("eventmesh") or "view" in name or "memory" in name]
    assert len(ours) == 9
    assert all((figures[name].value or 0) > 0 for name in figures)
    assert figures["single events at 200/s to 2 consumers, p50, eventmesh"].met
    assert figures["one remote query at a time, p50, eventmesh"].met
    kept = next((tmp_path / "run" / "records").glob("events-eventmesh*.arrow"))
    table = read(kept)
    assert table.num_rows == 60
    assert (table["received_at_1"].to_numpy() > table["sent_at"].to_numpy()).all()
    asked = [read(path) for path in sorted((tmp_path / "run" / "records").glob("queries-eventmesh*.arrow"))]
    assert [each.num_rows for each in asked] == [40, 60]
    assert all((each["answered_at"].to_numpy() > each["asked_at"].to_numpy()).all() for each in asked)
    for name, peer in PEERS.items():
        beside = [figure for figure in figures if f"eventmesh over {name}" in figure]
        if peer.missing() is None:
            assert len(beside) == (6 if name in LOGS else 2)
        else:
            assert any(line.startswith(f"{name} is not measured: ") for line in said)
            assert not any(name in figure for figure in figures)
    assert not (tmp_path / "run" / "work").exists()


def read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).read_all()


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for peer in PEERS.values():
        monkeypatch.setattr(peer, "missing", lambda: None)
    assert not any("is not measured" in line for line in small().describe())
    monkeypatch.setattr(PEERS[name], "missing", lambda: "it is not installed (apt-get install it)")
    assert small().describe()[-1] == f"{name} is not measured: it is not installed (apt-get install it)"


def test_only_peers_of_the_parts_that_are_measured_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for peer in PEERS.values():
        monkeypatch.setattr(peer, "missing", lambda: "it is not installed")
    settings = small().settings.model_copy(update={"append": None, "events": None, "deliveries": None})
    described = Backbone(settings, quick=True, meshes=CONFIGS / "meshes").describe()
    assert [line.partition(" is")[0] for line in described if "not measured" in line] == list(ANSWERERS)


@pytest.mark.parametrize(("part", "peer"), [("append", "gRPC"), ("events", "Redis"), ("query", "NATS JetStream")])
def test_a_target_for_a_peer_that_there_is_not_is_refused(part: str, peer: str) -> None:
    settings = small().settings.model_dump(by_alias=True)
    settings[part]["ratio_targets"] = {peer: "<1"}
    with pytest.raises(pydantic.ValidationError, match=f"{part}.ratio_targets"):
        Backbone.settings_type.model_validate(settings)


def test_what_is_not_installed_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages_missing("pyarrow") is None
    assert packages_missing("pyarrow", "no_such_one") == "no_such_one is not installed (pip install no_such_one)"
    assert packages_missing("no_one", "nobody") == "no_one, nobody are not installed (pip install no_one nobody)"
    monkeypatch.setenv("PATH", "")
    assert redis_streams.missing() == "redis-server is not installed (apt-get install redis-server)"
    monkeypatch.setattr(nats_jetstream, "SYSTEM_PATH", "")
    assert nats_jetstream.missing() == "nats-server is not installed (apt-get install nats-server)"


@each(redis_streams, nats_jetstream, grpc_query, http_query, eventmesh_query)
def test_a_server_ends_with_its_measurement(system: ModuleType, tmp_path: Path) -> None:
    serve: Callable[..., Any] = system.server if system in LOGS.values() else partial(system.server, keys=10)
    with serve(tmp_path / "server") as address:
        connect(address).close()
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def connect(address: str) -> socket.socket:
    found = re.search(r"([\d.]+):(\d+)", address)
    assert found, address
    return socket.create_connection((found[1], int(found[2])), timeout=5.0)


@each(eventmesh_query, grpc_query, http_query)
def test_an_answer_that_is_wrong_ends_the_measurement(system: ModuleType, tmp_path: Path) -> None:
    with system.server(tmp_path / "server", 10) as address:
        known = {"address": address, "keys": 10, "count": 30, "at_once": 3}
        [answers] = together([(system.asking, known)])
        assert len(answers) == 30
        with pytest.raises(RuntimeError, match=system.__name__):
            together([(system.asking, {**known, "keys": 1_000})])


@each(nats_jetstream)
def test_a_message_that_is_not_taken_ends_the_measurement(system: ModuleType, tmp_path: Path) -> None:
    with system.server(tmp_path / "server") as address:
        batches = [thin(10)]
        [appended] = together([(system.appending_single, {**appending(address, THIN), "batches": batches})])
        assert appended.rows == 20
        with pytest.raises(RuntimeError, match="20 messages were refused"):
            together([(system.appending_single, {**appending(address, "nobody"), "batches": batches})])


def appending(address: str, topic: str) -> dict[str, Any]:
    return {"address": address, "topic": topic, "rows": 20}


@each(nats_jetstream)
def test_a_consumer_that_breaks_ends_the_measurement_with_its_reason(system: ModuleType, tmp_path: Path) -> None:
    with system.server(tmp_path / "server") as address:
        sent = (system.appending_single, {**appending(address, THIN), "batches": [thin(10)]})
        broken = (system.delivering_blobs, {"address": address, "topic": THIN, "rows": 20})
        with pytest.raises(RuntimeError, match=r"delivering_blobs: ArrowInvalid|delivering_blobs: OSError"):
            together([sent, broken])


def _breaks_at_once(told: Any) -> None:
    raise SystemExit(3)


def test_a_server_that_does_not_start_is_named() -> None:
    with pytest.raises(RuntimeError, match="_breaks_at_once ended by itself"), in_process(_breaks_at_once):
        pass


def test_questions_are_of_keys_that_there_are_and_the_same_for_everybody() -> None:
    assert questions(10, 1_000) == questions(10, 1_000)
    assert set(questions(10, 1_000)) == set(range(10))


def test_answers_of_the_warmup_are_not_counted() -> None:
    answers = Answers()
    for number in range(10):  # the first five take 9 ms each, all others 1 ms
        took = 9_000_000 if number < 5 else 1_000_000
        asked = answers.pairs[-1][1] if answers.pairs else 0
        answers.add(asked, asked + took)
    assert answers.median_ms(5) == 1.0
    assert answers.per_s(5) == 1_000.0
    assert answers.per_s(0) == 200.0
    assert answers.table().num_rows == len(answers) == 10


def test_rows_have_the_shapes_that_are_named() -> None:
    rows = thin(1_000)
    assert sum(column.nbytes for column in rows.columns) == 34 * 1_000  # 8, 8, and 14 with an offset of 4
    full = envelope(10)
    assert [name for name in full.schema.names if full[name].null_count] == []
    assert len(set(prices(10, first=5)["sku"].to_pylist())) == 10


def test_sums_are_those_of_the_rows_that_were_sent() -> None:
    batches = [thin(10, 0), thin(10, 10)]
    assert sum_of(batches, 10) == sum(range(10))
    assert sum_of(batches, 50) == 2 * sum(range(20)) + sum(range(10))


def _breaks(barrier: Any) -> None:
    barrier.wait()
    raise ValueError("broken on purpose")


def test_a_process_that_breaks_ends_the_measurement_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match="broken on purpose"):
        together([(_breaks, {}), (_breaks, {})])


def test_a_start_is_timed_beside_as_many_bare_actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(backbone_start, "mesh_s", lambda mesh, folder: (len(mesh.services) + 2, 9.0))
    monkeypatch.setattr(backbone_start, "bare_s", lambda actors: asked.append(actors) or 6.0)
    samples = list(backbone_start.Start(mesh="views", target="<1.3").measured(tmp_path, 0))
    assert [sample.value for sample in samples] == [9.0, 6.0, 1.5]
    assert (asked, samples[2].target) == ([9], "<1.3")
    assert samples[0].figure == "start of a mesh of 9 actors, Ray included"
