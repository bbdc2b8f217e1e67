"""Given a mesh that is to stay, then what is wrong is said before anything starts, and nothing is left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eventmesh import mesh as meshes
from eventmesh.log.storage import FileStorage, machine_id
from eventmesh.log.store import Durability, Log
from tests.commands.conftest import Run, stands
from tests.commands.small_run import CONFIGS

MESH = CONFIGS / "meshes" / "views.yaml"
TOKEN = "0123456789abcdef-of-this-test"


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a log of the mesh in it, which nobody has open."""
    folder = tmp_path_factory.mktemp("data")
    _log(folder, "node-of-the-test").close()
    return folder


def _log(folder: Path, node: str) -> Log:
    topics = meshes.load(MESH).topics()
    storage = FileStorage(folder / "log")
    return Log.open(storage, topics, durability=Durability.os, cluster_id="c", node=node, clock=lambda: 1)


@pytest.mark.parametrize("name", ["Shop", "my shop", "-shop", "../shop", "", "s" * 41])
@pytest.mark.parametrize("command", ["up", "down", "status", "run"])
def test_a_name_that_is_none(eventmesh: Run, command: str, name: str) -> None:
    words = [command, str(MESH)] if command == "up" else [command]
    eventmesh(*words, "--name", name).must_have_refused("is no name for a mesh", "such as shop")


@pytest.mark.parametrize("words", [["down"], ["status"], ["run"], ["log", "topics"], ["trace", "G1"]])
def test_a_name_that_is_not_up(eventmesh: Run, state: Path, words: list[str]) -> None:
    eventmesh(*words, "--name", "shop").must_have_refused("no mesh called 'shop' is up. Nothing is up. Start a mesh")
    (state / "shop.json").write_text("{}")
    eventmesh(*words, "--name", "shpo").must_have_refused("no mesh called 'shpo' is up. Did you mean 'shop'?")


def test_a_record_that_is_damaged(eventmesh: Run, state: Path) -> None:
    (state / "shop.json").write_text("{")
    eventmesh("status", "--name", "shop").must_have_refused(state / "shop.json", "Remove it", code=6)


def test_no_mesh_where_none_lies_yet(eventmesh: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    eventmesh("up", "--data", empty).must_have_refused(f"{empty} holds no mesh yet", "name the mesh, such as views")


def test_a_mesh_that_keeps_nothing(eventmesh: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("memory")
    file = folder / "memory.yaml"
    document = yaml.safe_load(MESH.read_text())
    document["log"]["durability"] = "memory"
    file.write_text(yaml.safe_dump(document))
    eventmesh("up", file, "--data", folder / "data").must_have_refused("durability memory keeps nothing", "os or fsync")


def test_a_wiring_that_others_have_left_orders_in(eventmesh: Run, data: Path) -> None:
    (data / "mesh.yaml").write_text(yaml.safe_dump(meshes.load(CONFIGS / "meshes" / "request.yaml").resolved()))
    ended = eventmesh("up", MESH, "--data", data)
    ended.must_have_refused(data, "belongs to a mesh of wiring 'request', not 'views'", "--data")


def test_a_data_directory_of_another_node(eventmesh: Run, data: Path) -> None:
    ended = eventmesh("up", MESH, "--data", data)
    ended.must_have_refused(data, "belongs to node node-of-the-test", "a copy opened elsewhere", code=6)


def test_a_data_directory_that_is_in_use(eventmesh: Run, data: Path) -> None:
    held = _log(data, "node-of-the-test")
    eventmesh("up", MESH, "--data", data).must_have_refused(data, "is in use by process", code=6)
    held.close()


def test_a_data_directory_of_other_topics(eventmesh: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("other")
    data, other = folder / "data", folder / "other.yaml"
    _log(data, machine_id()).close()
    document = yaml.safe_load(MESH.read_text())
    document["topics"]["orders"]["partitions"] = 3
    other.write_text(yaml.safe_dump(document))
    ended = eventmesh("up", other, "--data", data)
    ended.must_have_refused("orders", "partitions", "3", code=6)


def test_a_data_directory_that_cannot_be_made(eventmesh: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("file") / "data"
    file.write_text("here")
    eventmesh("up", MESH, "--data", file).must_have_refused(file, "cannot be made", "--data", code=6)


@pytest.mark.parametrize(
    ("said", "problem"),
    [("short", "found 5 characters"), ("", "found 0 characters"), (f"{TOKEN} {TOKEN}", "found several words")],
)
def test_a_token_that_is_none(
    eventmesh: Run, tmp_path_factory: pytest.TempPathFactory, said: str, problem: str
) -> None:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(said)
    ended = eventmesh("up", MESH, "--data", file.with_name("data"), "--token-file", file)
    ended.must_have_refused(file, "expected one line of at least 16 characters", problem)
    missing = file.with_name("missing")
    eventmesh("up", MESH, "--data", file.with_name("data"), "--token-file", missing).must_have_refused(missing)


def test_listening_beyond_loopback_needs_a_token(eventmesh: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("data") / "shop"
    ended = eventmesh("up", MESH, "--data", data, "--listen", "0.0.0.0")
    ended.must_have_refused("listening on 0.0.0.0 without a token would let everybody in")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere", "127.0.0.1:ray", "127.0.0.1:99999999"])
def test_a_ray_that_does_not_answer(
    eventmesh: Run, closed_port: int, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, address = tmp_path_factory.mktemp("data") / "shop", address.format(port=closed_port)
    ended = eventmesh("up", MESH, "--data", data, "--address", address)
    assert ended.code == 6
    assert f"no Ray answers at {address}: expected host:port" in ended.err
    assert ended.made == []
    eventmesh("status").must_have_refused("no mesh called 'shop' is up")


def test_what_goes_together_and_what_does_not(eventmesh: Run, small_run: Path, state: Path) -> None:
    eventmesh("run").must_have_refused("name either a mesh, such as views", "--name")
    eventmesh("run", MESH, "--name", "shop").must_have_refused("name either a mesh, such as views", "--name")
    stands(state, "shop", small_run)
    eventmesh("run", "--name", "shop", "--rtt-ms", 1).must_have_refused("--rtt-ms is for a mesh that is started")
    words = ["log", "topics", "--run", small_run, "--name", "shop"]
    eventmesh(*words).must_have_refused("--run names a run's folder, --name a mesh that is up")
    words = ["log", "tail", "orders", "--run", small_run, "--follow"]
    eventmesh(*words).must_have_refused("a run that is over grows no more")


def test_the_last_records_of_a_topic(eventmesh: Run, small_run: Path) -> None:
    ended = eventmesh("log", "tail", "orders", "--run", small_run, "--limit", 3)
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.out.splitlines()) == 3
    whole = eventmesh("log", "tail", "orders", "--run", small_run, "--limit", 100_000).out.splitlines()
    assert whole[-3:] == ended.out.splitlines()
    everything = [
        line
        for partition in (0, 1)
        for line in eventmesh(
            "log", "read", "orders", "--run", small_run, "--partition", partition, "--limit", 100_000
        ).out.splitlines()
    ]  # fmt: skip
    assert sorted(whole) == sorted(everything)
