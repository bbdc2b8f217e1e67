"""``eventmesh chaos``: failure experiments, checked, run and healed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from eventmesh.errors import InputError
from eventmesh.lab import known
from eventmesh.lab.command_line import RUNS, Json, by_name, progress, sayer, show
from eventmesh.lab.examples import Commands

_experiment = known.complete_shipped("experiments")
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", autocompletion=_experiment, help="An experiment of `eventmesh chaos list`, or a file."
    ),
]


class Runtime(StrEnum):
    """What an experiment runs on."""

    ray = "ray"
    simulated = "simulated"


On = Annotated[Runtime, typer.Option("--runtime", help="A simulation on a virtual clock, or real processes on Ray.")]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of every chance.", show_default="the file's"),
]

chaos_app = Commands(
    help="Failure experiments: what is believed, what goes wrong, what was seen.\n\n"
    "\b\nExample:\n  eventmesh chaos run split",
)


@chaos_app.command("list")
def chaos_list(json_output: Json = False) -> None:
    """The experiments that ship, and the question each answers.

    \b
    Example:
      eventmesh chaos list
    """
    from eventmesh import shipped
    from eventmesh.lab import experiment

    found = experiment.questions(shipped.folder("experiments"))
    show(found, json_output, lambda screen: screen.pairs(found))


@chaos_app.command("validate")
def chaos_validate(file: File, runtime: On = Runtime.simulated, seed: Seed = None, json_output: Json = False) -> None:
    """Check an experiment, its meshes and its faults; start nothing.

    \b
    Example:
      eventmesh chaos validate split
    """
    from eventmesh.lab import experiment

    ready = experiment.load(file, runtime=runtime.value, seed=seed)
    show(ready.summary(), json_output, lambda screen: screen.pairs(ready.summary()))


@chaos_app.command("run")
def chaos_run(
    file: File,
    runtime: Annotated[
        Runtime | None,
        typer.Option(
            "--runtime",
            help="A simulation on a virtual clock, or real processes on Ray.",
            show_default="simulated; ray with --name",
        ),
    ] = None,
    name: Annotated[str | None, by_name("Run it on a mesh that is up; on meshes of its own, if not given.")] = None,
    seed: Seed = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="An empty folder for the results.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Check everything, start nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Run an experiment; write journal.json, report.html, summary.md and run.json.

    On a mesh that is up it is the next of its runs: of the experiment's meshes the one of the same wiring is run, and
    offsets are counted from where the log ends before the load. Whatever ends this command, the mesh is healed.

    Exit code 0: the hypothesis held; 4: it did not; 3: the audit found a run invalid; 5: a fault did not happen, or
    nothing can be said.

    \b
    Examples:
      eventmesh chaos run broker-kill
      eventmesh chaos run split --seed 7 --output results
      eventmesh chaos run split --name shop
    """
    from eventmesh.lab import chaos, experiment
    from eventmesh.lab import run as runs
    from eventmesh.lab.standing_record import find

    if name is not None and runtime is Runtime.simulated:
        raise InputError("a mesh that is up runs on Ray: leave --runtime out, or --name")
    if output is not None:
        runs.must_be_empty(output)

    def load(up: experiment.MeshUp | None) -> experiment.Ready:
        on = runtime or (Runtime.simulated if up is None else Runtime.ray)
        return experiment.load(file, runtime=on.value, seed=seed, up=up)

    with progress() as (console, report):
        standing = None if name is None else find(name)
        ready = load(None if standing is None else chaos.mesh_up(standing))
        if not dry_run:
            folder = runs.empty_folder(output) if output else runs.new_folder(RUNS, ready.name)
            if standing is not None:
                finished = chaos.run_on(standing, load, folder, report=report, say=sayer(console))
            else:
                finished = chaos.run(ready, folder, report=report)
    if dry_run:
        show(ready.summary(), json_output, lambda screen: screen.pairs(ready.summary()))
        return
    document = finished.model_dump(mode="json", by_alias=True)
    show(document, json_output, lambda screen: screen.benchmark(folder))
    raise typer.Exit(chaos.exit_code(finished))


@chaos_app.command("heal")
def chaos_heal(
    name: Annotated[str | None, by_name("A mesh that is up; all if not given.")] = None, json_output: Json = False
) -> None:
    """End every fault of a mesh that is up. It may be repeated, and does nothing where nothing is wrong.

    \b
    Example:
      eventmesh chaos heal
    """
    from eventmesh.lab import chaos

    healed = chaos.heal(name)
    show(healed, json_output, lambda screen: screen.line("\n".join(f"{mesh}: {said}" for mesh, said in healed.items())))
