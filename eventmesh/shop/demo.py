"""One order, asked and told: the same purchase in two wirings on the simulated runtime, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eventmesh import mesh as meshes
from eventmesh.runtime.effects import Append, SendAsk, SendReply
from eventmesh.runtime.simulated.network import Process
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.shop.generated_orders import generate
from eventmesh.shop.workloads import of_history

#: Which wirings are told of, and what an order is in each.
WIRINGS = {"request": "asked", "views": "told"}


@dataclass(frozen=True)
class Moment:
    """One thing that happened. ``at_ms`` counts from when the customer pressed the button."""

    at_ms: float
    who: str
    what: str
    kind: str  # command, query, reply, fact


@dataclass(frozen=True)
class Story:
    """How one wiring took the order."""

    wiring: str
    moments: Sequence[Moment]
    accepted_ms: float
    completed_ms: float
    outcome: str
    messages: int
    asked: Sequence[str]  # the services that had to be up for the order to be accepted

    @property
    def title(self) -> str:
        """What it is the story of."""
        return f"{WIRINGS[self.wiring]} (wiring: {self.wiring})"


def tell(meshes_folder: Path, *, seed: int = 1) -> list[Story]:
    """The same order in each of :data:`WIRINGS`."""
    return [_story(meshes_folder / f"{wiring}.yaml", wiring, seed) for wiring in WIRINGS]


class _Watched(Simulation):
    """A simulation that keeps what every process sent."""

    def watch(self) -> None:
        self.seen: list[Moment] = []
        self.began = self.now

    def _effect(self, process: Process, effect: object) -> None:
        if hasattr(self, "seen"):
            self.seen += [Moment((self.now - self.began) / 1e3, *words) for words in _words(self, process, effect)]
        super()._effect(process, effect)  # type: ignore[arg-type]


def _words(simulation: Simulation, process: Process, effect: object) -> list[tuple[str, str, str]]:
    who = process.name.rpartition("/")[0] or "customer"
    if isinstance(effect, SendAsk):
        kind = simulation.mesh.application.MESSAGES[effect.message.name].kind
        mark = "?" if kind == "query" else ""
        return [(who, f"→ {effect.to.service}: {effect.message.name}{mark}", kind)]
    if isinstance(effect, SendReply) and effect.reply.rows:
        said = effect.reply.rows[0]
        words = said.get("outcome") or ", ".join(f"{key} {value}" for key, value in said.items() if key != "version")
        return [(who, f"← {words}", "reply")]
    if isinstance(effect, Append) and effect.entry.header.kind == "facts":
        topic = simulation.owned[effect.entry.header.writer].name
        types = effect.entry.batch.column("type").to_pylist()
        return [(who, f"{kind} ⇒ {topic}", "fact") for kind in dict.fromkeys(types)]
    return []


def _story(file: Path, wiring: str, seed: int) -> Story:
    simulation = _Watched(meshes.load(file), seed=seed)
    workload = of_history(generate(1, seed=seed, lines_per_order=2))
    for number, stage in enumerate(workload.seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain()
    simulation.watch()
    caller = simulation.call("customer", workload.load).caller
    assert caller is not None
    simulation.drain()
    began, moments = simulation.began, simulation.seen
    accepted = (int(caller.accepted[0]) - began) / 1e3
    answered = {m.what.split()[1].rstrip(":") for m in moments if m.what.startswith("→") and m.at_ms <= accepted}
    return Story(
        wiring,
        moments,
        accepted,
        (int(caller.completed[0]) - began) / 1e3,
        caller.outcomes[0] or "",
        len(moments),
        sorted(answered),
    )
