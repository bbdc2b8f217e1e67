"""The story of a mesh that stays, as a user types it: up, loaded, hurt, an experiment on it, backed up, its Ray killed,
up again, down, and restored elsewhere.

One story in chapters, since each start of a mesh takes ten seconds.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pyarrow.flight as flight
import pytest

from eventmesh.log.store import open_read_only
from tests.on_ray.terminal import ROOT, SOON_S, Terminal, opened, still_running
from tests.process.whole_mesh import until

pytestmark = pytest.mark.timeout(400)


EXPERIMENT = """\
schema: eventmesh.experiment/1
title: Does the shop take orders while orders and the broker do not hear of each other?
description: Every connection between them is stalled.
mesh: views
load: {{rate: 50, options: {{orders: 100}}, served: [confirmed]}}
steady-state-hypothesis:
  title: None fails
  probes:
    - {{name: orders do not fail, probe: failed-share, tolerance: "<0.01"}}
method:
  - type: action
    name: orders and the broker are stalled
    moment: {{kind: at-time, seconds: 0.5}}
    fault: {{kind: stall, source: orders, target: broker, lasts_s: {lasts_s}}}
"""


def processes(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in status["processes"]}


def partition(status: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in status["partitions"] if each["partition"] == name)
    return dict(found)


def written(log: Path, topic: str) -> int:
    """How many offsets of a topic are acknowledged."""
    with closing(open_read_only(log)) as reader:
        return sum(reader.watermark(topic, number) for number in range(reader.topics[topic].partitions))


def all_live(status: dict[str, Any]) -> bool:
    return all(each["state"] == "live" and each["pid"] for each in status["processes"])


def experiment(terminal: Terminal, lasts_s: float) -> str:
    """A file: orders and the broker do not hear of each other for that long."""
    file = terminal.folder / f"stall-{lasts_s:g}.yaml"
    file.write_text(EXPERIMENT.format(lasts_s=lasts_s))
    return str(file)


def listed(undos: Path) -> list[Any]:
    return list(json.loads(undos.read_text())["undos"])


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with opened() as here:
        yield here


def test_a_mesh_that_stays_outlives_whatever_is_killed_and_keeps_what_it_was_told(terminal: Terminal) -> None:
    mesh = str(ROOT / "configs/meshes/views.yaml")
    said = terminal.ok("up", mesh, "--token-file", "token")
    assert said.startswith("shop is up: Ray at 127.0.0.1:")
    assert "a mesh called 'shop' is up since" in terminal.refused("up", mesh, code=2)
    before = terminal.until(all_live)
    assert len(before["processes"]) == 10
    terminal.ok("run", "--name", "shop", "--orders", "200", "-o", "first")

    processes_are_killed(terminal, before)
    an_experiment_is_run(terminal)
    a_backup_is_taken_under_load(terminal)
    who_runs_an_experiment_is_killed(terminal)
    ray_is_killed_and_the_mesh_goes_on(terminal)
    a_file_comes_again(terminal)

    living = [psutil.Process(each["pid"]) for each in terminal.until(all_live)["processes"]]
    assert terminal.ok("down").startswith("shop is down; its data is in")
    assert still_running(living) == []
    assert "no mesh called 'shop' is up" in terminal.refused("down", code=2)
    assert not [path for path in terminal.folder.iterdir() if path.name.startswith("eventmesh-")], "Ray's folder"
    what_is_restored_goes_on(terminal)


def processes_are_killed(terminal: Terminal, before: dict[str, Any]) -> None:
    pids = {name: each["pid"] for name, each in processes(before).items()}
    hurt = ("broker/0", "orders/0", "inventory/0", "supervisor/0")
    for name in hurt:
        os.kill(pids[name], signal.SIGKILL)

    def healed(status: dict[str, Any]) -> bool:
        return all_live(status) and all(processes(status)[name]["pid"] != pids[name] for name in hurt)

    after = terminal.until(healed)
    assert partition(after, "orders/0")["epoch"] > partition(before, "orders/0")["epoch"]


def an_experiment_is_run(terminal: Terminal) -> None:
    second = json.loads(terminal.ok("chaos", "run", experiment(terminal, lasts_s=0.5), "--name", "shop", "--json"))
    assert (second["verdict"], second["experiment"]["mesh_up"]) == ("valid", "shop")
    assert second["experiment"]["wirings"][0]["outcomes"] == {"confirmed": 100}
    assert second["faults"][0]["fault"]["kind"] == "stall"
    assert terminal.ok("trace", "R2-00000007", "--name", "shop").startswith("R2-00000007, first fact at")
    assert "OrderConfirmed" in terminal.ok("log", "tail", "orders", "--name", "shop", "-n", "1000")


def a_backup_is_taken_under_load(terminal: Terminal) -> None:
    begun, log = terminal.until(lambda status: status["flight"] is not None), terminal.folder / "data" / "shop" / "log"
    before = written(log, "orders")
    with terminal.begin("run", "--name", "shop", "--orders", "1500", "--rate", "100", "-o", "third", "--json") as load:
        # Seen in its files: a command that watches it takes as long to begin as much of the load lasts.
        until(lambda: written(log, "orders") > before + 100, SOON_S)
        said = json.loads(terminal.ok("backup", "shop.tar.zst", "--json"))
        assert (said["runs"], said["under_way"]) == (2, ["run-3-load"]), "in the middle of the third run"
        out, err = load.communicate(timeout=120)
    assert load.returncode == 0, err
    assert json.loads(out)["verdict"] == "valid", "the mesh that was copied has not noticed"

    token = {"authorization": f"Bearer {(terminal.folder / 'token').read_text().strip()}"}
    options = flight.FlightCallOptions(headers=[(name.encode(), said.encode()) for name, said in token.items()])
    with flight.connect(begun["flight"]) as client:
        flights = client.list_flights(options=options)
        found = {tuple(word.decode() for word in each.descriptor.path): each for each in flights}
        orders = found["orders", "0"]
        read = client.do_get(orders.endpoints[0].ticket, options).read_all()
        assert read.num_rows == orders.total_records > 0


def who_runs_an_experiment_is_killed(terminal: Terminal) -> None:
    """What undoes its faults is carried out by the supervisor. Who is interrupted does it before it ends."""
    undos = terminal.folder / "data" / "shop" / "undos.json"
    for how in (signal.SIGINT, signal.SIGKILL):
        with terminal.begin("chaos", "run", experiment(terminal, lasts_s=600), "--name", "shop") as broken:
            until(lambda: listed(undos) != [], SOON_S)
            broken.send_signal(how)
            _, said = broken.communicate(timeout=SOON_S)
            if how == signal.SIGINT:
                assert (broken.returncode, listed(undos)) == (130, []), said
                assert "Traceback" not in said
        until(lambda: listed(undos) == [], SOON_S)


def ray_is_killed_and_the_mesh_goes_on(terminal: Terminal) -> None:
    ends = {f"{each['topic']}/{each['partition']}": each["end"] for each in terminal.topics()}
    pids = [each["pid"] for each in terminal.until(all_live)["processes"]]
    record = json.loads((terminal.folder / "state" / "shop.json").read_text())
    os.killpg(record["head_pid"], signal.SIGKILL)
    assert still_running([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]) == []
    assert "is gone, with every process of the mesh" in terminal.refused("status", code=6)
    terminal.ok("up", "--token-file", "token")
    again = terminal.until(all_live)
    assert all(partition(again, name)["end"] >= end for name, end in ends.items())
    fifth = json.loads(terminal.ok("run", "--name", "shop", "--orders", "50", "--json"))
    assert (fifth["verdict"], fifth["outcomes"]) == ("valid", {"confirmed": 50})


def a_file_comes_again(terminal: Terminal) -> None:
    """Then it is repeats, and another order under one of its ids is refused; nothing is seeded twice."""
    sales = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    sales += [f"{n},A1,x,{n - 1},2011-01-04 10:00:00,1.25,c{n},France" for n in (1, 2, 3)]  # none of A1 is no order
    other = [*sales[:2], sales[2].replace("1.25", "7.50"), sales[3]]
    words = ("--input", "sales.csv", "--mapping", str(ROOT / "configs/mappings/online-retail.yaml"))
    for content, outcomes in (
        (sales, {"confirmed": 2}),
        (sales, {"repeated": 2}),
        (other, {"refused": 1, "repeated": 1}),
    ):
        (terminal.folder / "sales.csv").write_text("\n".join(content) + "\n")
        run = json.loads(terminal.ok("run", "--name", "shop", *words, "-o", "_".join(outcomes), "--json"))
        assert (run["verdict"], run["outcomes"]) == ("valid", outcomes)
    assert len((terminal.folder / "confirmed" / "refused.csv").read_text().splitlines()) == 2
    assert "order 2 was asked for before, with other lines" in run["refusals"][0]
    restocked = [line for line in terminal.ok("log", "tail", "stock", "--name", "shop", "-n", "1000").splitlines()
                 if "StockRestocked" in line and " sku=A1 " in line]  # fmt: skip
    assert len(restocked) == 1


def what_is_restored_goes_on(terminal: Terminal) -> None:
    """With the run that it was in the middle of."""
    assert "not an empty folder" in terminal.refused("restore", "shop.tar.zst", code=2)
    terminal.ok("restore", "shop.tar.zst", "--data", "restored")
    terminal.ok("up", "--data", "restored")
    fourth = json.loads(terminal.ok("run", "--name", "shop", "--orders", "50", "--json"))
    assert (fourth["verdict"], fourth["outcomes"]) == ("valid", {"confirmed": 50})
    callers = sorted(path.name for path in (terminal.folder / "restored" / "callers").glob("*.arrow"))
    assert callers == [f"run-{number}.arrow" for number in (1, 2, 3, 4)], "the third run came to its end"
    assert terminal.ok("trace", "R3-00001500", "--name", "shop").startswith("R3-00001500, first fact at")
    terminal.ok("log", "verify", "--name", "shop")
    terminal.ok("down")
