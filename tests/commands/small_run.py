"""The folder of a small run: a simulated one of the shop, with log and history where a run on Ray leaves them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from eventmesh import mesh
from eventmesh.lab.run import write_mesh
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.log.storage import MemoryStorage
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

CONFIGS = Path(__file__).parents[2] / "configs"
ORDERS = 8
SEED = 1


def write_run(folder: Path, **traits: Any) -> Path:
    """Make ``folder`` the folder of a run of :data:`ORDERS` orders, with the ids G00000001 and so on.

    ``traits`` are further arguments of the generator.
    """
    workload = of_history(generate(ORDERS, seed=SEED, **traits))
    views = mesh.load(CONFIGS / "meshes" / "views.yaml")
    run = run_simulated(views, workload, seed=SEED)
    run.history.write(folder)
    write_mesh(folder, views)
    write_log(folder / "log", run.simulation.storage)
    return folder


def write_log(folder: Path, storage: MemoryStorage) -> None:
    """Write a simulated log as files."""
    counters = {path: struct.pack("<q", counter.get()) for path, counter in storage.counters.items()}
    for path, content in {**storage.files, **counters}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
