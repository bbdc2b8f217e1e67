"""The fuzzer: seed after seed a mesh with its load and faults, each run, drained and audited; findings are shrunk.

A seed names one exact history. Seeds are independent of each other, so that several processes share them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eventmesh import mesh as meshes
from eventmesh import shipped
from eventmesh.lab import fuzz_files, fuzz_verdict
from eventmesh.lab.fuzz_case import Case, Ran, run
from eventmesh.lab.fuzz_draws import KINDS, drawn
from eventmesh.lab.fuzz_files import FindingFile, SeedResult
from eventmesh.lab.fuzz_verdict import Finding
from eventmesh.lab.shrinking import Bound, shrunk
from eventmesh.report.progress_bar import Report

MINUTE_S = 60.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Seed:
    """A seed that is to be run, on a mesh by its name and description."""

    seed: int
    mesh: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class ToShrink:
    """A seed that was found, and how long to look for something smaller that fails alike."""

    of: Seed
    found: Mapping[str, str]
    seconds: float


Piece = Seed | ToShrink


class Workers(Protocol):
    """Who does the pieces: processes of this machine, or tasks of a cluster."""

    def put(self, piece: Any) -> None:
        """Have it done, after those before it."""

    def put_first(self, piece: Any) -> None:
        """Have it done next."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Each with what came of it, as it comes."""


@dataclass
class Fuzzed:
    """What came of the seeds. ``struck`` counts by kind the faults that happened."""

    commit: str
    meshes: list[str]
    seeds: int = 0
    seeds_per_minute: float = 0.0
    done_before: int = 0
    deaths: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def never_struck(self) -> list[str]:
        """The kinds of fault that did not happen once."""
        return [kind for kind in KINDS if not self.struck[kind]]

    def add(self, result: SeedResult) -> None:
        """Count a seed."""
        self.seeds += 1
        self.deaths += result.deaths
        self.ended[result.ended] += 1
        self.struck.update(result.struck)
        if result.found:
            self.findings.append({"seed": result.seed, "mesh": result.mesh, "found": result.found, "file": None})

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "schema": fuzz_files.SCHEMA, "commit": self.commit, "meshes": self.meshes, "seeds": self.seeds,
            "done_before": self.done_before, "seeds_per_minute": round(self.seeds_per_minute, 1),
            "deaths": self.deaths, "ended": dict(self.ended), "struck": {kind: self.struck[kind] for kind in KINDS},
            "never_struck": self.never_struck, "findings": self.findings,
        }  # fmt: skip


def described(mesh_file: Path | None) -> dict[str, dict[str, Any]]:
    """The meshes whose turn it is seed after seed, by name: the one that is given, or all that ship."""
    if mesh_file is not None:
        mesh = meshes.load(shipped.find("meshes", mesh_file))
        return {mesh.name: mesh.resolved()}
    files = [shipped.folder("meshes") / f"{name}.yaml" for name in shipped.names("meshes")]
    return {mesh.name: mesh.resolved() for mesh in map(meshes.load, files)}


def of_seed(documents: Mapping[str, Mapping[str, Any]], seed: int) -> Seed:
    """The seed with the mesh whose turn it is."""
    name = list(documents)[seed % len(documents)]
    return Seed(seed, name, documents[name])


# --- one piece of work --------------------------------------------------------------------------------


def work(piece: Piece, commit: str, code: str) -> SeedResult | FindingFile:
    """Run a seed, or shrink what it found. What several processes do."""
    if isinstance(piece, Seed):
        return tried(piece, commit, code)[0]
    return smaller(piece, commit)


def tried(seed: Seed, commit: str, code: str) -> tuple[SeedResult, Ran]:
    """Run and judge a seed."""
    began = time.monotonic()
    ran = run(drawn(seed.document, seed.seed))
    found = fuzz_verdict.judge(ran)
    result = SeedResult(
        commit=commit, code=code, mesh=seed.mesh, seed=seed.seed, setup=ran.case.setup, variation=ran.case.variation,
        struck=dict(ran.struck_by_kind()), deaths=ran.simulation.deaths, outcomes=ran.outcomes(), ended=ran.ended(),
        found=found.said, run_s=round(time.monotonic() - began, 3),
    )  # fmt: skip
    return result, ran


def smaller(piece: ToShrink, commit: str) -> FindingFile:
    """The smallest case that fails alike, as far as the time went."""
    found, case = Finding(dict(piece.found)), drawn(piece.of.document, piece.of.seed)
    least = shrunk(case, lambda few: fuzz_verdict.judge(run(few)).like(found), Bound(piece.seconds))
    return finding_of(piece.of, least, commit, shrunk=least != case)


def finding_of(seed: Seed, case: Case, commit: str, *, shrunk: bool) -> FindingFile:
    """A case as a file holds it, with what comes of it."""
    ran = run(case)
    return FindingFile(
        commit=commit, mesh=seed.mesh, seed=seed.seed, found=fuzz_verdict.judge(ran).said, raised=ran.trace(),
        digest=ran.digest(), shrunk=shrunk, case=case,
    )  # fmt: skip


# --- many ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is to be run: ``shrink_s`` seconds for each kind of finding, results and findings below ``folder``."""

    documents: Mapping[str, Mapping[str, Any]]
    seeds: Iterable[int]
    folder: Path
    commit: str
    code: str
    resume: bool = False
    shrink_s: float = 60.0


def fuzz(plan: Plan, workers: AbstractContextManager[Workers], *, report: Report, say: Say) -> Fuzzed:
    """Run every seed that is not done yet; what came of all of them, those that were done before included."""
    fuzzed = Fuzzed(plan.commit, list(plan.documents))
    known = fuzz_files.read_results(plan.folder) if plan.resume else []
    before = fuzz_files.done(known, commit=plan.commit, code=plan.code)
    seeds = list(plan.seeds)
    began = time.monotonic()
    with workers as pool, fuzz_files.open_results(plan.folder) as results:
        for seed in seeds:
            if seed in before:
                _add(plan, fuzzed, of_seed(plan.documents, seed), before[seed], pool, say)
            else:
                pool.put(of_seed(plan.documents, seed))
        fuzzed.done_before = fuzzed.seeds
        report("seeds", fuzzed.seeds, len(seeds))
        for piece, result in pool:
            if isinstance(piece, Seed):
                fuzz_files.append_result(results, result)
                _add(plan, fuzzed, piece, result, pool, say)
                report("seeds", fuzzed.seeds, len(seeds))
                passed = time.monotonic() - began
                fuzzed.seeds_per_minute = (fuzzed.seeds - fuzzed.done_before) * MINUTE_S / passed
            else:
                _keep(plan, fuzzed, result, say)
    fuzzed.findings.sort(key=lambda each: int(each["seed"]))
    return fuzzed


def _add(plan: Plan, fuzzed: Fuzzed, seed: Seed, result: SeedResult, pool: Workers, say: Say) -> None:
    """Count a result; what was found is shrunk next, unless it is, or something like it was found before."""
    alike = any(each["found"].keys() == result.found.keys() for each in fuzzed.findings)
    fuzzed.add(result)
    if not result.found:
        return
    say(f"seed {seed.seed} ({seed.mesh}): {', '.join(result.found)}{' again' if alike else ''}; commit {plan.commit}")
    written = [] if not plan.resume else sorted(plan.folder.glob(f"{seed.mesh}-{seed.seed}-*.json"))
    if written:
        fuzzed.findings[-1]["file"] = str(written[0])
    elif not alike:
        pool.put_first(ToShrink(seed, result.found, plan.shrink_s))


def _keep(plan: Plan, fuzzed: Fuzzed, finding: FindingFile, say: Say) -> None:
    target = fuzz_files.write_finding(plan.folder, finding)
    for each in fuzzed.findings:
        if each["seed"] == finding.seed:
            each["file"] = str(target)
    case = finding.case
    requests = len(case.workload().load)
    faults = len(case.faults) + len(case.seeding_faults)
    say(f"seed {finding.seed}: shrunk to {faults} faults and {requests} requests: {target}")


def ahead(plan: Plan) -> dict[str, Any]:
    """What :func:`fuzz` would do."""
    known = fuzz_files.read_results(plan.folder) if plan.resume else []
    before = fuzz_files.done(known, commit=plan.commit, code=plan.code)
    seeds = list(plan.seeds)
    return {
        "meshes": ", ".join(plan.documents), "commit": plan.commit, "seeds": f"{seeds[0]} to {seeds[-1]}",
        "done before": sum(seed in before for seed in seeds), "results": str(plan.folder / fuzz_files.RESULTS),
        "faults": ", ".join(KINDS),
    }  # fmt: skip


# --- the story of one ---------------------------------------------------------------------------------


def stands_for(seed: Seed, commit: str) -> dict[str, Any]:
    """What a seed stands for, which nobody has run."""
    case = drawn(seed.document, seed.seed)
    return {
        "seed": seed.seed, "mesh": seed.mesh, "commit": commit, **_configuration(case),
        "faults": ", ".join(each.fault.kind for each in (*case.seeding_faults, *case.faults)),
    }  # fmt: skip


def story(seed: Seed, commit: str) -> dict[str, Any]:
    """What a seed stands for and what came of it, as data."""
    result, ran = tried(seed, commit, "")
    return told(ran, seed.mesh, commit, result.found)


def told(ran: Ran, mesh: str, commit: str, found: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a run, its faults as they struck, deaths, outcome. Times are virtual, from its load on."""
    case, simulation = ran.case, ran.simulation
    processes = [simulation.broker, *simulation.hosts.values(), *simulation.clients.values()]
    return {
        "schema": fuzz_files.SCHEMA, "seed": case.seed, "commit": commit, "mesh": mesh,
        "configuration": _configuration(case) | {"requests sent": len(ran.workload.load)},
        "faults planned": len(case.seeding_faults) + len(case.faults),
        "faults": [
            {
                "ms": round((each.at_us - ran.load_began_us) / 1_000, 1),
                "until": None if each.ended_us is None else round((each.ended_us - ran.load_began_us) / 1_000, 1),
                "kind": each.fault.kind,
                "how": each.fault.model_dump(mode="json", exclude={"kind"}),
                "shows": dict(each.shows) | dict(each.details),
            }
            for each in ran.struck
        ],
        "lives": {process.name: process.life for process in processes},
        "deaths": simulation.deaths,
        "virtual_s": round((simulation.world.now - ran.load_began_us) / 1e6, 3),
        "outcomes": ran.outcomes(),
        "ended": ran.ended(), "found": dict(found), "raised": ran.trace(), "digest": ran.digest(),
    }  # fmt: skip


def _configuration(case: Case) -> dict[str, Any]:
    """What was drawn, faults aside; of speeds and limits those that are not as they are by default."""
    surroundings: dict[str, Any] = {"speeds": case.speeds, "limits": case.limits}
    unusual = {f"{name}: {key}": value for name, of in surroundings.items() for key, value in _unusual(of).items()}
    return {**case.setup.model_dump(mode="json"), **case.variation, **unusual}


def _unusual(chosen: Any) -> dict[str, Any]:
    usual = vars(type(chosen)())
    return {name: value for name, value in vars(chosen).items() if value != usual[name]}


def replayed(path: Path, commit: str) -> dict[str, Any]:
    """The story of a finding's file, run again; ``same`` says whether all that it left is as it was, to the byte."""
    finding = fuzz_files.read_finding(path)
    ran = run(finding.case)
    again = told(ran, finding.mesh, commit, fuzz_verdict.judge(ran).said)
    return {**again, "of_commit": finding.commit, "same": again["digest"] == finding.digest}
