"""Given faults as data, then they go through JSON unharmed, and what makes no sense is refused with a sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eventmesh import mesh as meshes
from eventmesh.errors import ConfigurationError
from eventmesh.runtime import faults
from eventmesh.runtime.faults import FAULTS, PLAN, AtOffset, AtTime, Kill, Planned, WithinOffsets, WithinTime

MESH = meshes.load(Path(__file__).parents[2] / "configs" / "meshes" / "views.yaml")
LINK = {"source": "broker", "target": ["orders/0", "payments"], "lasts_s": 1.0}
ASKS = {"source": "generator", "target": "*", "share": 0.5, "lasts_s": 1.0}
EXAMPLES: dict[str, dict[str, Any]] = {
    "kill": {"process": "machine"},
    "freeze": {"process": "orders/0", "lasts_s": 0.1},
    "end": {"process": "broker", "lasts_s": 0.1},
    "clock-jump": {"process": "generator", "by_ms": -50, "lasts_s": 0.1},
    "latency": LINK | {"latency_ms": 10, "jitter_ms": 5, "topics": ["stock"]},
    "bandwidth": LINK | {"rate_kb_per_s": 100, "direction": "to"},
    "stall": LINK | {"toxicity": 0.5},
    "cut": LINK,
    "reset": {name: value for name, value in LINK.items() if name != "lasts_s"},
    "split": {"groups": ["broker", ["orders", "stock-keeper"]], "lasts_s": 1.0},
    "loss": ASKS,
    "duplication": ASKS | {"delay_ms": [0, 10]},
    "reordering": ASKS | {"delay_ms": [5, 10]},
    "slow-disk": {"extra_ms": 10, "lasts_s": 1.0},
    "full-disk": {"lasts_s": 1.0},
    "failing-syncs": {"lasts_s": 1.0},
    "torn-write": {"after_bytes": 100},
    "flipped-bit": {"partition": "stock/0", "segment": "closed"},
    "lost-unsynced": {},
}
MOMENTS: tuple[dict[str, Any], ...] = (
    {"kind": "at-offset", "partition": "stock/0", "offset": 40},
    {"kind": "at-time", "seconds": 0.25},
    {"kind": "within-offsets", "partition": "stock/0", "offsets": [10, 50]},
    {"kind": "within-time", "seconds": [0.1, 0.5]},
)


def planned(kind: str, moment: dict[str, Any] = MOMENTS[1], **other: Any) -> Planned:
    return Planned.model_validate({"moment": moment, "fault": {"kind": kind, **EXAMPLES[kind], **other}})


def test_there_is_an_example_of_every_kind() -> None:
    assert EXAMPLES.keys() == FAULTS.keys()


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment["kind"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_plan_goes_through_json_unharmed(kind: str, moment: dict[str, Any]) -> None:
    plan = (planned(kind, moment),)
    assert PLAN.validate_json(PLAN.dump_json(plan)) == plan
    assert type(plan[0].fault) is FAULTS[kind]
    assert hash(plan) == hash(PLAN.validate_python(json.loads(PLAN.dump_json(plan))))


def test_a_drawn_moment_is_fixed_by_the_dice_and_a_fixed_one_stays() -> None:
    offsets = WithinOffsets(partition="stock/0", offsets=(10, 50))
    seconds = WithinTime(seconds=(0.1, 0.5))
    once = [faults.fixed(each, random.Random(7)) for each in (offsets, seconds)]
    assert once == [faults.fixed(each, random.Random(7)) for each in (offsets, seconds)]
    drawn = {faults.fixed(offsets, random.Random(seed)) for seed in range(50)}
    assert len(drawn) > 10
    assert all(isinstance(each, AtOffset) and 10 <= each.offset <= 50 for each in drawn)
    at = AtTime(seconds=3)
    assert faults.fixed(at, random.Random(7)) is at


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "kil", "process": "broker"}, "'kil'"),
        ({"kind": "kill", "process": "broker", "lasts_s": 1}, "lasts_s"),
        ({"kind": "freeze", "process": "broker"}, "lasts_s"),
        ({"kind": "freeze", "process": "broker", "lasts_s": 0}, "greater than 0"),
        ({"kind": "clock-jump", "process": "broker", "by_ms": 0, "lasts_s": 1}, "no fault"),
        ({"kind": "cut", "source": "*", "target": "*", "lasts_s": 1}, "one side must name"),
        ({"kind": "split", "groups": ["*", "*"], "lasts_s": 1}, "one of them must name"),
        ({"kind": "cut", "source": [], "target": "*", "lasts_s": 1}, "at least 1 item"),
        ({"kind": "stall", **LINK, "toxicity": 1.5}, "less than or equal to 1"),
        ({"kind": "reordering", **ASKS, "delay_ms": [10, 5]}, "write the lower one first"),
    ],
)
def test_nonsense_is_refused_where_it_stands(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Planned.model_validate({"moment": MOMENTS[1], "fault": document})


def test_what_fits_the_mesh_is_not_refused() -> None:
    known = [planned(kind, moment) for kind in FAULTS if kind != "split" for moment in MOMENTS]
    assert faults.refusals(known, MESH, "simulated") == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (planned("kill", process="oders/0"), "there is no process 'oders/0'. There are broker, "),
        (planned("freeze", process="machine"), "freeze is of one process, not of a whole machine"),
        (planned("split"), "nothing is called 'stock-keeper'"),
        (planned("flipped-bit", partition="stock/9"), "stock has partitions 0 to 1, not 9"),
        (planned("latency", topics=["stok"]), "there is no topic 'stok'"),
        (planned("kill", {"kind": "at-offset", "partition": "stok/0", "offset": 1}), "there is no topic 'stok'"),
    ],
)
def test_what_does_not_fit_the_mesh_is_refused_with_a_sentence(given: Planned, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        faults.check([given], MESH, "simulated")


def test_a_caller_is_known_by_the_names_that_are_given() -> None:
    kill = Kill(process="customer")
    assert len(faults.refusals([kill], MESH, "simulated")) == 1
    assert faults.refusals([kill], MESH, "simulated", callers=["customer"]) == []


def test_a_kind_that_a_runtime_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kill, "runtimes", ("simulated",))
    sentence = "kill does not exist on the runtime on_ray, only on simulated"
    assert faults.refusals([Kill(process="broker")], MESH, "on_ray") == [sentence]
