"""Given a mesh on Ray, then its processes publish their figures, and who can scrape this Ray finds them."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventmesh import mesh as meshes
from eventmesh.runtime.on_ray.calls import get, wait_until
from eventmesh.runtime.on_ray.cluster import MeshOnRay
from eventmesh.runtime.process.metrics import METRICS
from eventmesh.runtime.running import measure_load, seed_with
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

MESHES = Path(__file__).resolve().parents[2] / "configs" / "meshes"
SAMPLE = re.compile(r"^ray_(eventmesh_\w+)\{(.*)\} ([-+.\de]+)$", re.MULTILINE)
pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[MeshOnRay]:
    """A mesh that has dealt with some orders."""
    workload = of_history(generate(60, seed=3, products=20))
    with MeshOnRay(meshes.load(MESHES / "views.yaml"), tmp_path / "log", seed=3) as running:
        seed_with(running, workload.seeding)
        measure_load(running, "load", workload.load)
        yield running


def published(mesh: MeshOnRay) -> list[int]:
    found: list[int] = get([each.published.remote() for each in (mesh.actors.broker, *mesh.actors.services.values())])
    return found


def logged() -> str:
    """What the processes of this Ray have said on their standard error."""
    import ray

    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    return "".join(path.read_text(errors="replace") for path in folder.glob("worker-*.err"))


def test_every_process_publishes_again_and_again_and_nothing_is_said_of_it(mesh: MeshOnRay) -> None:
    before = published(mesh)
    wait_until(lambda: all(now > then for now, then in zip(published(mesh), before, strict=True)), "a publication")
    assert "Traceback" not in logged()
    assert "metric" not in logged()


def scraped() -> dict[tuple[str, ...], float]:
    """By name without prefix and tags in the order in which they are described."""
    import ray

    address, port = ray.nodes()[0]["NodeManagerAddress"], ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[(name.removeprefix("eventmesh_"), tags["mesh"], *(tags[tag] for tag in METRICS[name].tags))] = float(
            value
        )
    return found


def exports() -> bool:
    """Whether this Ray has an agent that exports, which takes ``ray[default]``."""
    import importlib.util

    return importlib.util.find_spec("prometheus_client") is not None


@pytest.mark.skipif(not exports(), reason="this Ray exports no metrics: install ray[default]")
def test_prometheus_finds_rates_ends_lag_and_ages(mesh: MeshOnRay) -> None:
    name = mesh.directory.mesh
    ends = {tuple(position.split("/")): end for position, end in get(mesh.actors.broker.ends.remote()).items()}
    last: dict[str, Any] = {}

    def ours(kind: str) -> dict[tuple[str, ...], float]:
        return {series[2:]: value for series, value in last.items() if series[0] == kind and series[1] == name}

    def complete() -> bool:
        """Processes publish, and Ray exports, each in its own time."""
        last.clear()
        last.update(scraped())
        rows, facts = ours("appended_rows_total"), ours("decided_facts_total")
        return ours("end_offset") == ends and 0 < sum(rows.values()) == sum(facts.values())

    wait_until(complete, "the figures of a mesh that is quiet", explain=lambda: str(last))
    rows = ours("appended_rows_total")
    assert all(rows[position] < end for position, end in ends.items() if position in rows), "grants are not appends"
    assert sum(ours("appended_bytes_total").values()) > 100 * sum(rows.values())
    assert ours("answered_rows_total")["gateway", "0"] >= 60
    assert set(ours("lag_rows").values()) == {0}
    assert set(ours("view_age_ms").values()) == {0}
