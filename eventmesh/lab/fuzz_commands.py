"""``eventmesh fuzz``: looks for a seed under which a promise is broken."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventmesh.errors import InputError
from eventmesh.lab import known
from eventmesh.lab.command_line import Json, progress, sayer, show

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from eventmesh.lab.fuzz import Workers

#: Where results and findings go.
FOLDER = Path("fuzz")
SEEDS = 100
SEED_MAX = 2**32 - 1
#: What a finding exits with, as an audit that is not valid does.
FOUND = 3


def fuzz(
    mesh: Annotated[
        Path | None,
        typer.Argument(
            metavar="MESH",
            autocompletion=known.complete_shipped("meshes"),
            help="A mesh that ships, or a mesh file; all that ship in turn, if not given.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=SEED_MAX, help=f"How many seeds; {SEEDS} if not given.")
    ] = None,
    first: Annotated[int | None, typer.Option(metavar="N", min=0, max=SEED_MAX, help="The first of them.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=SEED_MAX, help="Run this one and tell its story.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run what was found before, from the file of the finding.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1_000, help="Processes, or tasks; one for each core if not given."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster, whose tasks share the seeds.")
    ] = None,
    shrink_s: Annotated[
        float, typer.Option(metavar="X", min=0.0, max=86_400.0, help="Seconds to make each kind of finding smaller.")
    ] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip the seeds that this commit has run, by the results in the folder.")
    ] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where results and findings are written.")
    ] = FOLDER,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would be run, run nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Look for a seed under which a promise is broken.

    Each seed draws a mesh, what callers ask, and faults of every kind; its run is simulated and audited. A finding is
    made smaller and written to a file, with which --replay runs it again.

    \b
    Examples:
      eventmesh fuzz --seeds 300
      eventmesh fuzz views --seeds 2000 --jobs 2 --resume
      eventmesh fuzz --seed 17
    """
    if seed is not None or replay is not None:
        given = {"--seeds": seeds, "--first": first, "--jobs": jobs, "--address": address, "--resume": resume or None}
        _one(mesh, seed, replay, [name for name, value in given.items() if value is not None], dry_run, json_output)
    else:
        numbers = range(first or 0, (first or 0) + (seeds or SEEDS))
        _many(mesh, numbers, jobs, address, shrink_s, resume, output, dry_run, json_output)


def _one(
    mesh: Path | None, seed: int | None, replay: Path | None, of_many: list[str], dry_run: bool, json_output: bool,
) -> None:  # fmt: skip
    from eventmesh.lab import fuzz as fuzzer
    from eventmesh.lab.fuzz_files import commit

    alone = "--seed" if seed is not None else "--replay"
    if of_many:
        raise InputError(f"{alone} runs one history: leave out {', '.join(of_many)}")
    if replay is None:
        assert seed is not None
        whole = fuzzer.of_seed(fuzzer.described(mesh), seed)
        if dry_run:
            ahead = fuzzer.stands_for(whole, commit())
            show(ahead, json_output, lambda screen: screen.pairs(ahead))
            return
        story = fuzzer.story(whole, commit())
    elif seed is not None or mesh is not None or dry_run:
        raise InputError("--replay runs what the file says: leave out the mesh, --seed and --dry-run")
    else:
        story = fuzzer.replayed(replay, commit())
    show(story, json_output, lambda screen: screen.fuzz_story(story))
    raise typer.Exit(FOUND if story["found"] else 0)


def _many(
    mesh: Path | None, seeds: range, jobs: int | None, address: str | None, shrink_s: float, resume: bool,
    output: Path, dry_run: bool, json_output: bool,
) -> None:  # fmt: skip
    from eventmesh.lab import fuzz as fuzzer
    from eventmesh.lab import fuzz_files

    if seeds[-1] > SEED_MAX:
        raise InputError(f"--first and --seeds go up to seed {seeds[-1]}: the last one there is is {SEED_MAX}")
    documents = fuzzer.described(mesh)
    commit, code = fuzz_files.commit(), fuzz_files.code(documents)
    plan = fuzzer.Plan(documents, seeds, output, commit, code, resume=resume, shrink_s=shrink_s)
    if dry_run:
        ahead = fuzzer.ahead(plan)
        show(ahead, json_output, lambda screen: screen.pairs(ahead))
        return
    with progress() as (console, report):
        workers = _workers(partial(fuzzer.work, commit=commit, code=code), jobs, address)
        found = fuzzer.fuzz(plan, workers, report=report, say=sayer(console))
    show(found.to_json(), json_output, lambda screen: screen.fuzzed(found.to_json(), output))
    raise typer.Exit(FOUND if found.findings else 0)


def _workers(work: Callable[[Any], Any], jobs: int | None, address: str | None) -> AbstractContextManager[Workers]:
    from eventmesh.lab.jobs import Jobs

    if address is None:
        return Jobs(work, jobs or os.cpu_count() or 1)
    from eventmesh.runtime.on_ray.tasks import Tasks

    return Tasks(work, address, jobs)
