"""Given a wiring's needs, then each is really one: without it the mesh is refused, and would not have worked."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.tiny
from eventmesh import mesh as meshes
from eventmesh import shop
from eventmesh.declared import InputRefused
from eventmesh.errors import ConfigurationError
from eventmesh.lab.run import prepare
from eventmesh.lab.simulated_run import run_simulated
from eventmesh.log.batch import CONTROL_PREFIX
from eventmesh.needs import Needs
from eventmesh.service import Trigger
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history
from eventmesh.workload import Workload
from tests.tiny.lending import Borrow, Desk

ROOT = Path(__file__).parents[2]
SHOP = {path.stem: path for path in sorted((ROOT / "configs" / "meshes").glob("*.yaml"))}
TINY = ROOT / "tests" / "tiny"
LIBRARY = {"library-events": TINY / "mesh.yaml", "library-asking": TINY / "asking.yaml"}
Document = dict[str, Any]
#: Callers ask again after five seconds.
BEFORE_REPEATS_S = 4.0


def document(name: str) -> Document:
    """A mesh of the shop, or of the library under ``library-WIRING``."""
    return meshes.load({**SHOP, **LIBRARY}[name]).resolved()


def workload(name: str) -> Workload:
    """A few requests of every kind, at a pace at which cancellations find their orders at every stage."""
    if name in SHOP:
        return of_history(generate(40, seed=3, cancel_permille=300, cancel_after_s_mean=0.005), rate=400.0)
    return tests.tiny.workload(tests.tiny.WORKLOAD(seed=1, loans=20))


MESHES = [*SHOP, *LIBRARY]


def without(name: str) -> Iterator[tuple[str, Document]]:
    """The mesh without one thing, for each that it has: a topic listened to, a view, a service asked."""
    for service, section in document(name)["services"].items():
        for key in ("listens", "asks", "views"):
            for each in section[key]:
                changed = document(name)
                held = changed["services"][service][key]
                held.pop(each) if key == "views" else held.remove(each)
                yield f"services.{service}.{key}", changed


CASES = [
    pytest.param(name, path, changed, id=f"{name} {path} {number}")
    for name in MESHES
    for number, (path, changed) in enumerate(without(name))
]


def works(name: str, changed: Document) -> bool:
    """Whether all that was asked is done, nobody having to repeat it for want of an answer, and the audit is valid."""
    mesh = meshes.parse(changed)
    try:
        run = run_simulated(mesh, workload(name), seed=1, seconds=BEFORE_REPEATS_S)
    except Exception:  # a deadlock, or whatever a rule makes of what is not there
        return False
    outcomes = run.history.callers["outcome"].to_pylist()
    return None not in outcomes and run.audit().verdict == "valid"


def refusal(read: Callable[..., object], *given: Any) -> ConfigurationError | None:
    try:
        read(*given)
    except ConfigurationError as error:
        return error
    return None


def refused(changed: Document) -> ConfigurationError:
    error = refusal(meshes.parse, changed)
    assert error is not None
    return error


def with_hint(changed: Document, hint: str) -> Document:
    """The document with the lines that the hint says to write."""
    mended = copy.deepcopy(changed)
    for place, line in re.findall(r"under ([\w.]+): (\w[\w-]*: (?:\{[^}]*\}|\[[^\]]*\]|\S+))", hint):
        section = mended
        for step in place.split("."):
            section = section[step]
        section.update(yaml.safe_load(line))
    return mended


@pytest.mark.parametrize("name", MESHES)
def test_what_has_all_it_needs_works(name: str) -> None:
    assert works(name, document(name))


@pytest.mark.parametrize(("name", "path", "changed"), CASES)
def test_each_need_is_told_and_needed(monkeypatch: pytest.MonkeyPatch, name: str, path: str, changed: Document) -> None:
    error = refusal(meshes.parse, changed)
    if error is None:
        assert works(name, changed), "it is not refused, so it must work"
        return
    assert (error.path, "Write under" in error.hint) == (path, True)
    assert meshes.parse(with_hint(changed, error.hint)), "the line to add is the line that was missing"
    if not path.endswith(".asks"):  # who is asked may be told by the boundaries of contexts: it is no wire
        monkeypatch.setattr(Needs, "check", lambda self, **stored: None)
        assert not works(name, changed), "it is refused, so it must not work"


def test_who_hears_refusals_listens_to_the_topic_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    events = tests.tiny.WIRINGS["events"]
    desk = Trigger({Borrow: Desk.borrow, InputRefused: Desk.give_up})
    monkeypatch.setitem(tests.tiny.WIRINGS, "events", {**events, "desk": desk})
    changed = document("library-events")
    assert changed["services"]["desk"]["listens"] == ["copies"], "it takes no other fact of copies, and needs it"
    changed["services"]["desk"]["listens"] = []
    error = refused(changed)
    assert "it acts on InputRefused, a fact of copies, and does not listen to it" in error.problem
    assert error.hint == "Write under services.desk: listens: [copies]"


def less(name: str, service: str, *, topic: bool) -> Document:
    """The mesh without a service and whatever names it; its topic goes too, or stays as that of a plug-in."""
    changed = document(name)
    del changed["services"][service]
    gone = {each for each, section in changed["topics"].items() if section["owner"] == service}
    for each in gone if topic else ():
        del changed["topics"][each]
    for section in changed["services"].values():
        section["asks"] = [each for each in section["asks"] if each != service]
        section["listens"] = [each for each in section["listens"] if each not in gone]
        views = {view: [each for each in topics if each not in gone] for view, topics in section["views"].items()}
        section["views"] = {view: topics for view, topics in views.items() if topics}
    return changed


def prepared(folder: Path, changed: Document) -> object:
    file = folder / "mesh.yaml"
    file.write_text(yaml.safe_dump(changed))
    return prepare(file, {"orders": 5})


@pytest.mark.parametrize("topic", [True, False], ids=["with its topic", "but not its topic"])
@pytest.mark.parametrize(
    ("name", "service"), [(name, service) for name in SHOP for service in document(name)["services"]]
)
def test_no_service_can_be_left_out_and_each_hint_leads_back(
    tmp_path: Path, name: str, service: str, topic: bool
) -> None:
    changed, hints = less(name, service, topic=topic), []
    while error := refusal(prepared, tmp_path, changed):
        hints.append(error.hint)
        mended = with_hint(changed, error.hint)
        assert (error.file, mended != changed) == (str(tmp_path / "mesh.yaml"), True), error
        changed = mended
    assert hints, "it must be refused"
    assert works(name, document(name) | {"services": document(name)["services"] | changed["services"]})


def test_what_is_not_joined_is_not_needed(tmp_path: Path) -> None:
    for name in ("views", "hybrid"):
        changed = document(name)
        orders = changed["services"]["orders"]
        orders.update(joins=["stock"], views={"stock": ["stock"]} if name == "views" else {})
        orders["asks"] = ["inventory"] if name == "hybrid" else []
        assert works(name, changed)


def test_a_command_that_callers_send_needs_its_service(tmp_path: Path) -> None:
    changed = less("views", "customers", topic=True)
    changed["services"]["orders"]["joins"] = ["stock"]
    meshes.parse(changed)
    with pytest.raises(ConfigurationError, match="the run sends RegisterCustomer to 'customers', which is not descr"):
        prepared(tmp_path, changed)


def test_a_name_that_the_application_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    views, orders = document("views"), shop.WIRINGS["views"]["orders"]
    wirings = {**shop.WIRINGS["views"], "orders": Trigger({**orders.rules, "OrderRequestd": print}, reads=orders.reads)}
    monkeypatch.setitem(shop.WIRINGS, "views", wirings)
    error = refused(views)
    assert (error.path, "'OrderRequestd'" in error.problem) == ("wiring", True)
    assert "Did you mean 'OrderRequested'?" in error.hint
    monkeypatch.setitem(shop.WIRINGS, "views", {**wirings, "orders": Trigger({}, sends=["TakOrder"])})
    assert "Did you mean 'TakeOrder'?" in refused(views).hint
    monkeypatch.setitem(shop.WIRINGS, "views", {**wirings, "orders": Trigger({}, reads=["stok"])})
    assert "Did you mean 'stock'?" in refused(views).hint


def test_what_is_sent_is_answered_by_who_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be repeated until somebody gives up."""
    asking, shelf = document("library-asking"), tests.tiny.WIRINGS["asking"]["shelf"]
    misspelt = {("Lemd" if name == "Lend" else name): rule for name, rule in shelf.rules.items()}
    messages = tests.tiny.DECLARED.messages
    monkeypatch.setitem(messages, "Lemd", replace(messages["Lend"], name="Lemd"))
    monkeypatch.setitem(tests.tiny.WIRINGS, "asking", {**tests.tiny.WIRINGS["asking"], "shelf": Trigger(misspelt)})
    error = refused(asking)
    assert (error.path, error.problem) == (
        "wiring", "in wiring 'asking' desk sends Lend to shelf, which has no rule for it",
    )  # fmt: skip
    assert error.hint == "Give shelf a rule: 'Lend' in the wiring's Trigger of shelf. Did you mean 'Lemd'?"
    monkeypatch.undo()
    assert works("library-asking", asking)

    hybrid = document("hybrid")
    monkeypatch.setattr(shop.SERVICES["catalog"], "queries", {})
    error = refused(hybrid)
    assert error.problem == "in wiring 'hybrid' orders sends PriceBySku to catalog, which does not answer it"
    assert error.hint == "Add 'PriceBySku' to the queries of catalog"


@pytest.mark.parametrize("name", MESHES)
def test_facts_stand_on_the_topics_that_the_application_says(name: str) -> None:
    run = run_simulated(meshes.parse(document(name)), workload(name), seed=2)
    said = meshes.parse(document(name)).application.DECLARED.kinds()
    for topic, each in run.simulation.mesh.topics().items():
        for partition in range(each.partitions):
            kinds = set(run.reader.table(topic, partition)["type"].to_pylist())
            assert {kind for kind in kinds if not kind.startswith(CONTROL_PREFIX)} <= set(said[topic])
