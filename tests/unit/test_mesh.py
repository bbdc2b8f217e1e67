"""Given a mesh file, then either a consistent mesh, or an error that says where and what to write instead."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from eventmesh import mesh
from eventmesh.declared import Declared, Fact
from eventmesh.errors import ConfigurationError, NotFound, StoredSetting
from eventmesh.mesh import Mesh
from eventmesh.service import Service, Trigger
from eventmesh.views import ViewShape

MESHES = Path(__file__).parents[2] / "configs" / "meshes"
LIBRARY = """\
schema: eventmesh.mesh/1
name: library
application: a_library
wiring: events
topics:
  loans: {owner: desk, key: loan_id, partitions: 4}
  shelf: {owner: stacks, key: book_id, partitions: 2, cleanup.policy: delete, retention.ms: -1}
  fines: {owner: cashier, key: loan_id}
services:
  desk: {views: {books: [shelf, fines]}, instances: 3, asks: [stacks]}
  stacks: {listens: [loans], seats: 12}
"""


class LoanTaken(Fact, topic="loans"):
    """Of the desk."""

    loan_id: str
    book_id: str


class BookShelved(Fact, topic="shelf"):
    """Of the stacks."""

    book_id: str
    copies: int
    lit: bool


class FineDue(Fact, topic="fines"):
    """Of the cashier."""

    loan_id: str
    book_id: str


class NoOptions(BaseModel):
    """A service without options of its own."""


class Lamp(BaseModel):
    """A mapping inside the options."""

    colour: Literal["warm", "cold"] = "warm"


class StacksOptions(BaseModel):
    """Options, one of them a mapping."""

    seats: int = 10
    lamp: Lamp = Lamp()
    shelves: int = Field(2, json_schema_extra={"wirings": ["request"]})


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    application = ModuleType("a_library")
    vars(application).update(
        DECLARED=Declared(LoanTaken, BookShelved, FineDue),
        OPTIONS={"desk": NoOptions, "stacks": StacksOptions, "cashier": NoOptions},
        WIRINGS={name: {"stacks": Trigger({LoanTaken: print})} for name in ("events", "request")},
        VIEWS={
            "books": ViewShape("book_id", ()),
            "late": ViewShape("loan_id", ()),
            "lights": ViewShape("lit", ()),
            "left": ViewShape("book_id", ("copies",)),
        },
    )
    sys.modules["a_library"] = application
    yield
    del sys.modules["a_library"]


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(LIBRARY)
    return loaded


def load(folder: Path, text: str) -> Mesh:
    path = folder / "library.yaml"
    path.write_text(text)
    return mesh.load(path)


def refusal(change: Callable[[dict[str, Any]], object]) -> ConfigurationError:
    changed = document()
    change(changed)
    with pytest.raises(ConfigurationError) as caught:
        mesh.parse(changed, file="library.yaml")
    assert caught.value.file == "library.yaml"
    return caught.value


def test_a_file_becomes_topics_with_columns_and_kafka_settings(tmp_path: Path) -> None:
    topics = load(tmp_path, LIBRARY).topics()
    assert {name: (topic.owner, topic.key, topic.partitions) for name, topic in topics.items()} == {
        "loans": ("desk", "loan_id", 4),
        "shelf": ("stacks", "book_id", 2),
        "fines": ("cashier", "loan_id", 1),
    }
    assert topics["shelf"].settings.cleanup_policy == "delete"
    assert topics["shelf"].settings.retention_ms == -1
    assert topics["loans"].settings.retention_ms == 7 * 24 * 60 * 60 * 1000
    assert topics["loans"].compatibility == "BACKWARD"
    assert topics["loans"].schema.names[-2:] == ["loan_id", "book_id"]


def test_options_stand_beside_the_framework_s_keys(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIBRARY)
    assert loaded.options["stacks"] == StacksOptions(seats=12)
    assert loaded.services["stacks"].listens == ["loans"]
    assert loaded.log.durability == "os"


def test_partitions_are_spread_over_instances(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIBRARY)
    assert loaded.topic_of("desk") == "loans"
    assert loaded.partitions_of("desk") == 4
    assert [loaded.instance_of("desk", partition) for partition in range(4)] == [0, 1, 2, 0]


def test_positions_outside_the_mesh_are_not_found(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIBRARY)
    with pytest.raises(NotFound, match="0 to 3, not 4"):
        loaded.instance_of("desk", 4)
    with pytest.raises(NotFound, match="Did you mean 'stacks'"):
        loaded.partitions_of("stack")


def test_an_owner_that_runs_later_is_a_plug_in(tmp_path: Path) -> None:
    assert load(tmp_path, LIBRARY).plug_ins() == ["cashier"]


def test_a_resolved_mesh_reads_back_the_same(tmp_path: Path) -> None:
    resolved = load(tmp_path, LIBRARY).resolved()
    assert resolved["services"]["stacks"]["lamp"] == {"colour": "warm"}
    assert resolved["topics"]["shelf"]["retention.ms"] == -1
    assert mesh.parse(resolved).resolved() == resolved


@pytest.mark.parametrize(
    ("section", "change", "said", "holds"),
    [
        (("topics", "shelf"), {"cleanup.policy": "compact", "retention.ms": 5},
         "topics.shelf.cleanup.policy: does nothing: there is no compaction yet, found text 'compact'. All of it is "
         "kept, as before", {"cleanup.policy": "delete", "retention.ms": -1, "retention.bytes": -1}),
        (("topics", "loans"), {"compatibility": "FULL"},
         "topics.loans.compatibility: does nothing: columns may grow as BACKWARD has it, and change in no other way "
         "yet, found text 'FULL'. It is passed over", {"compatibility": "BACKWARD"}),
        (("services", "stacks"), {"shelves": 3},
         "services.stacks.shelves: does nothing in wiring 'events', found number 3. It is passed over", {"shelves": 3}),
    ],
)  # fmt: skip
def test_a_stored_mesh_opens_with_what_has_no_effect_and_a_warning(
    section: tuple[str, str], change: dict[str, object], said: str, holds: dict[str, object]
) -> None:
    stored = document()
    stored[section[0]][section[1]] |= change
    with pytest.warns(StoredSetting, match=re.escape(f"data/mesh.yaml: {said}")) as warned:
        opened = mesh.parse(stored, file="data/mesh.yaml", stored=True)
    assert len(warned) == 1
    assert opened.resolved()[section[0]][section[1]].items() >= holds.items()


def test_a_stored_mesh_that_is_wrong_is_refused_like_any_other() -> None:
    stored = document()
    stored["topics"]["loans"] |= {"compatibility": "FULL", "ownr": "desk"}
    with pytest.warns(StoredSetting), pytest.raises(ConfigurationError, match="unknown key 'ownr'"):
        mesh.parse(stored, stored=True)


def test_a_mesh_travels_to_another_process(tmp_path: Path) -> None:
    sent = load(tmp_path, LIBRARY)
    received = pickle.loads(pickle.dumps(sent))
    assert received.resolved() == sent.resolved()
    assert received.topics() == sent.topics()


def test_an_application_gives_its_parts_to_a_runtime(tmp_path: Path) -> None:
    loaded = load(tmp_path, LIBRARY)
    with pytest.raises(ConfigurationError, match="it has no SERVICES"):
        _ = loaded.application
    vars(sys.modules["a_library"]).update(SERVICES={"desk": Service})
    assert loaded.application.SERVICES["desk"] is Service
    assert loaded.application.VIEWS["books"].key == "book_id"
    assert loaded.application.WIRINGS.keys() == {"events", "request"}


def test_the_diagram_shows_owners_listeners_views_and_asks(tmp_path: Path) -> None:
    lines = [line.strip() for line in load(tmp_path, LIBRARY).diagram().splitlines()]
    assert lines[0] == "flowchart LR"
    assert 'service_desk["desk × 3"]' in lines
    assert 'service_cashier["cashier (plug-in)"]' in lines
    assert [line for line in lines if "==>" in line or "-->" in line or "-." in line] == [
        "service_desk ==> topic_loans",
        "service_stacks ==> topic_shelf",
        "service_cashier ==> topic_fines",
        'topic_shelf -. "books" .-> service_desk',
        'topic_fines -. "books" .-> service_desk',
        'service_desk -- "asks" --> service_stacks',
        "topic_loans --> service_stacks",
    ]


def test_a_context_is_a_box_in_the_diagram() -> None:
    drawn = mesh.parse(document() | {"contexts": {"reading-room": ["desk", "stacks"]}}).diagram()
    box = drawn[drawn.index("subgraph") : drawn.index("    end")]
    assert box.startswith('subgraph context_reading_m_room["reading-room"]')
    assert "service_desk[" in box
    assert "service_stacks[" in box
    assert "service_cashier[" not in box


def test_asks_stay_inside_a_context() -> None:
    error = refusal(lambda d: d.update(contexts={"front": ["desk"], "back": ["stacks"]}))
    assert error.path == "services.desk.asks"
    assert "'desk' (front) asks 'stacks' (back)" in error.problem
    together = mesh.parse(document() | {"contexts": {"front": ["desk", "stacks"]}})
    assert together.may_ask("desk", "stacks")
    assert not together.may_ask("desk", "cashier")
    assert mesh.parse(document()).may_ask("desk", "cashier"), "without contexts everything is one context"


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (lambda d: d["topics"]["loans"].update(ownr="desk"), "topics.loans.ownr", "Did you mean 'owner'?"),
        (lambda d: d["topics"]["loans"].pop("owner"), "topics.loans.owner", "the key 'owner' is missing"),
        (
            lambda d: d["topics"]["shelf"].update({"cleanup.policy": "compacted"}),
            "topics.shelf.cleanup.policy",
            "unknown value 'compacted'. Allowed: delete",
        ),
        (
            lambda d: d["topics"]["shelf"].update({"cleanup.policy": "compact"}),
            "topics.shelf.cleanup.policy",
            "does nothing: there is no compaction yet, and the topic would only be kept for ever, found text "
            "'compact'. Write cleanup.policy: delete, with retention.ms: -1 to keep it for ever",
        ),
        (
            lambda d: d["topics"]["loans"].update(compatibility="FULL"),
            "topics.loans.compatibility",
            "does nothing: columns may grow as BACKWARD has it, and change in no other way yet, found text "
            "'FULL'. Leave the key out, or write compatibility: BACKWARD",
        ),
        (
            lambda d: d["topics"]["loans"].update(compatibility="FUL"),
            "topics.loans.compatibility",
            "unknown value 'FUL'. Allowed: BACKWARD",
        ),
        (
            lambda d: d["services"]["stacks"].update(shelves=3),
            "services.stacks.shelves",
            "does nothing in wiring 'events', found number 3. Leave it out, or choose a wiring that reads it: request",
        ),
        (lambda d: d["topics"]["loans"].update(partitions="2"), "topics.loans.partitions", "number, found text '2'"),
        (lambda d: d["topics"]["loans"].update(partitions=True), "topics.loans.partitions", "number, found bool true"),
        (lambda d: d["topics"]["loans"].update(partitions=0), "topics.loans.partitions", "greater than or equal to 1"),
        (lambda d: d["topics"]["loans"].update(key="loanid"), "topics.loans.key", "Did you mean 'loan_id'?"),
        (lambda d: d["topics"]["loans"].update(key="source"), "topics.loans.key", "unknown column 'source'"),
        (
            lambda d: d["topics"]["shelf"].update(key="copies"),
            "topics.shelf.key",
            "is of type int64, and a key is a text",
        ),
        (
            lambda d: d["services"]["desk"]["views"].update(lights=["shelf"]),
            "services.desk.views.lights",
            "of shelf is of type bool. A key is of texts or whole numbers. Those that shelf has: book_id, copies",
        ),
        (
            lambda d: d["services"]["desk"]["views"].update(late=["shelf"]),
            "services.desk.views.late",
            "of shelf 'loan_id'",
        ),
        (
            lambda d: d["services"]["desk"]["views"].update(left=["fines"]),
            "services.desk.views.left",
            "of fines 'copies'",
        ),
        (lambda d: d["topics"].update({"../loans": {}}), "topics.../loans", "must match pattern"),
        (lambda d: d["topics"].update(loands=dict(d["topics"]["loans"])), "topics.loands", "Did you mean 'loans'?"),
        (lambda d: d["topics"].update(fines={"owner": "cash", "key": "loan_id"}), "topics.fines.owner", "'cashier'?"),
        (lambda d: d["topics"]["fines"].update(owner="desk"), "topics.fines.owner", "'desk' owns 'loans' already"),
        (lambda d: d["services"]["stacks"]["listens"].append("fines"), "topics.fines.owner", "Add 'cashier'"),
        (lambda d: d["services"]["stacks"]["listens"].append("loan"), "services.stacks.listens[1]", "mean 'loans'?"),
        (lambda d: d["services"]["stacks"]["listens"].append("loans"), "services.stacks.listens[1]", "named twice"),
        (
            lambda d: d["services"]["desk"]["views"].update(late=["shelv"]),
            "services.desk.views.late[0]",
            "mean 'shelf'?",
        ),
        (
            lambda d: d["services"]["desk"]["views"].update(late=[]),
            "services.desk.views.late",
            "must have at least 1 item",
        ),
        (lambda d: d["services"]["desk"]["views"].update(book=["shelf"]), "services.desk.views.book", "mean 'books'?"),
        (lambda d: d["services"]["desk"].update(lisens=[]), "services.desk.lisens", "Did you mean 'listens'?"),
        (lambda d: d["services"]["desk"].update(asks=["desk"]), "services.desk.asks[0]", "Allowed: stacks"),
        (lambda d: d["services"]["desk"].update(instances=5), "services.desk.instances", "Allowed: 1 to 4"),
        (lambda d: d["services"]["stacks"].update(saets=1), "services.stacks.saets", "Did you mean 'seats'?"),
        (lambda d: d["services"]["stacks"].update(lamp={"color": 1}), "services.stacks.lamp.color", "mean 'colour'?"),
        (lambda d: d["services"].update(desks={}), "services.desks", "unknown service 'desks'. Did you mean 'desk'?"),
        (lambda d: d["services"].update(desk=None), "services.desk", "must be a mapping, found nothing"),
        (lambda d: (d["topics"].pop("fines"), d["services"].update(cashier={})), "services.desk.views.books[1]", ""),
        (lambda d: d["contexts"].update(a=["dusk"]), "contexts.a[0]", "Did you mean 'desk'?"),
        (lambda d: d["contexts"].update(a=["desk"], b=["desk"]), "contexts.b", "in context 'a' already"),
        (lambda d: d.update(wiring="event"), "wiring", "Did you mean 'events'? Allowed: events, request"),
        (lambda d: d.update(schema="eventmesh.mesh/9"), "schema", "Did you mean 'eventmesh.mesh/1'?"),
        (lambda d: d.update(application="not_installed"), "application", "'not_installed' cannot be imported"),
        (lambda d: d.update(application="yaml"), "application", "has no DECLARED, OPTIONS, WIRINGS"),
        (lambda d: d.update(log={"durability": "fsnyc"}), "log.durability", "Did you mean 'fsync'?"),
        (lambda d: d.update(log={"brokers": 2}), "log.brokers", "found 2, but one broker is what there is"),
        (lambda d: d.update(log={"brokers": 0}), "log.brokers", "must be greater than or equal to 1, found number 0"),
        (lambda d: d.update(brokers=2), "brokers", "Allowed: application, contexts, log"),
    ],
)
def test_a_mistake_is_refused_with_its_path_and_what_is_allowed(
    change: Callable[[dict[str, Any]], object], path: str, said: str
) -> None:
    error = refusal(lambda d: (d.setdefault("contexts", {}), change(d)))
    assert error.path == path
    assert said in str(error)


def test_an_application_that_fails_to_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_broken_library.py").write_text("1 / 0\n")
    error = refusal(lambda d: d.update(application="a_broken_library"))
    assert error.path == "application"
    assert error.problem.endswith("fails when it is imported: ZeroDivisionError: division by zero")


def test_a_mistyped_key_is_reported_rather_than_the_key_it_leaves_missing() -> None:
    error = refusal(lambda d: d["topics"]["loans"].update(ownr=d["topics"]["loans"].pop("owner")))
    assert error.path == "topics.loans.ownr"


def test_a_service_that_owns_no_topic_is_refused() -> None:
    def change(changed: dict[str, Any]) -> None:
        del changed["topics"]["fines"]
        changed["services"]["desk"]["views"] = {}
        changed["services"]["cashier"] = {}

    error = refusal(change)
    assert error.path == "services.cashier"
    assert "owns no topic" in error.problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LIBRARY.replace("  fines:", "  loans:"), "topics.loans: the key 'loans' stands twice, in lines 6 and 8"),
        (LIBRARY.replace("listens: [loans]", "seats: 3"), "services.stacks.seats: the key 'seats' stands twice"),
        (LIBRARY.replace("12}", "12"), "is not valid YAML: line 12, column 1"),
        ("a: &a [*a]\na: 1\n", "a: the key 'a' stands twice"),
        ("? [a]\n: 1\n", "is not valid YAML: line 1, column 3"),
        ("date: 2020-13-01\n", "is not valid YAML"),
        ("- a\n", "must be a mapping of keys to values, found a list"),
        ("", "must be a mapping of keys to values, found nothing"),
        ("a: 1\n---\na: 2\n", "line 2, column 1"),
    ],
)
def test_a_file_that_is_no_single_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "library.yaml"))
    assert said in str(caught.value)


def test_two_owners_of_one_topic_are_called_that(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="A topic has one owner"):
        load(tmp_path, LIBRARY.replace("  fines:", "  loans:"))


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    load(tmp_path, LIBRARY)
    with pytest.raises(ConfigurationError, match=r"no such file. Did you mean 'library.yaml'\?"):
        mesh.load(tmp_path / "libary.yaml")
    with pytest.raises(ConfigurationError, match="There is no folder"):
        mesh.load(tmp_path / "nowhere" / "library.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "library.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read as text"):
        mesh.load(tmp_path / "library.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read as text"):
        mesh.load(tmp_path)


def test_a_mesh_is_not_changed_by_reading_it() -> None:
    given = document()
    before = copy.deepcopy(given)
    mesh.parse(given)
    assert given == before


@pytest.mark.parametrize("path", sorted(MESHES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_meshes_of_the_project_load(path: Path) -> None:
    loaded = mesh.load(path)
    assert loaded.name == loaded.wiring == path.stem
    assert loaded.plug_ins() == ["pricing"]
    assert mesh.parse(loaded.resolved()).resolved() == loaded.resolved()
