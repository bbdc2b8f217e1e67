"""One order, asked and told: the same purchase in two wirings on the simulated runtime, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventmesh import mesh as meshes
from eventmesh.mesh import Mesh
from eventmesh.runtime.effects import Append, ReplyMessage
from eventmesh.runtime.simulated.network import Network, Process, Speeds
from eventmesh.runtime.simulated.processes import Asked
from eventmesh.runtime.simulated.simulation import Simulation
from eventmesh.runtime.simulated.world import World
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


class _Watched(Network):
    """A network that keeps what it was given to carry, as (time, sender, receiver, content)."""

    def __init__(self, world: World, speeds: Speeds) -> None:
        super().__init__(world, speeds)
        self.seen: list[tuple[int, str, str, object]] = []

    def send(self, sender: Process, to: Process, content: object, **how: Any) -> None:
        self.seen.append((self.world.now, _service(sender.name), _service(to.name), content))
        super().send(sender, to, content, **how)


class _Simulation(Simulation):
    network_of = _Watched
    network: _Watched


def _service(process: str) -> str:
    return process.rpartition("/")[0] or process


def _words(mesh: Mesh, to: str, content: object) -> list[tuple[str, str]]:
    """What is said of a message, and its kind."""
    match content:
        case Asked(_, message):
            kind = mesh.application.DECLARED.messages[message.name].kind
            return [(f"→ {to}: {message.name}{'?' if kind == 'query' else ''}", kind)]
        case ReplyMessage(rows=[said, *_]):
            words = said.get("outcome") or ", ".join(
                f"{key} {value}" for key, value in said.items() if key != "version"
            )
            return [(f"← {words}", "reply")]
        case Append(_, entry) if entry.header.kind == "facts":
            topic = next(topic.name for topic in mesh.topics().values() if topic.owner == entry.header.writer)
            types = entry.batch.column("type").to_pylist()
            return [(f"{kind} ⇒ {topic}", "fact") for kind in dict.fromkeys(types)]
    return []


def _story(file: Path, wiring: str, seed: int) -> Story:
    simulation = _Simulation(meshes.load(file), seed=seed)
    workload = of_history(generate(1, seed=seed, lines_per_order=2))
    for number, stage in enumerate(workload.seeding):
        simulation.call(f"seeding-{number}", stage)
    simulation.drain()
    simulation.network.seen.clear()
    began = simulation.world.now
    caller = simulation.call("customer", workload.load).caller
    assert caller is not None
    simulation.drain()
    moments = [
        Moment((at - began) / 1e3, who, *words)
        for at, who, to, content in simulation.network.seen
        for words in _words(simulation.mesh, to, content)
    ]
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
