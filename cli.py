"""The command line: parse, call one function, print. No logic, and nothing heavy is imported for ``--help``."""

from __future__ import annotations

import sys

try:
    from contextlib import suppress
    from enum import StrEnum
    from pathlib import Path
    from typing import Annotated, cast

    import typer

    from eventmesh.errors import EXIT_CODES, InputError
    from eventmesh.lab import known, shell
    from eventmesh.lab.application_commands import check, new
    from eventmesh.lab.chaos_commands import chaos_app
    from eventmesh.lab.command_line import (
        RUNS,
        Data,
        DryRun,
        Json,
        MeshName,
        Name,
        RunFolder,
        by_name,
        plain,
        progress,
        sayer,
        show,
        show_again,
        where,
    )
    from eventmesh.lab.examples import Commands
    from eventmesh.lab.fuzz_commands import fuzz
    from eventmesh.lab.load_options import BenchCommand, RunCommand, given
    from eventmesh.lab.log_commands import log_app
except KeyboardInterrupt:  # the imports take a third of a second, in which Ctrl-C is a traceback otherwise
    sys.stderr.write("eventmesh: stopped\n")
    sys.exit(130)

#: What a run and a benchmark exit with, by their verdict.
VERDICTS = {"valid": 0, "invalid": 3, "unknown": 5}

app = Commands(
    help="Should services ask each other, or listen? Run the same business both ways and see what each costs.\n\n"
    "\b\nExamples:\n  eventmesh demo\n  eventmesh run views --orders 2000\n"
    "  eventmesh bench run join-scaling --quick",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
)
bench_app = Commands(
    help="Benchmarks: one question each.\n\n\b\nExample:\n  eventmesh bench run join-scaling --quick",
)
runs_app = Commands(
    help="The runs in this folder's runs/.\n\n\b\nExample:\n  eventmesh runs prune --keep 10 --dry-run",
)
app.add_typer(bench_app, name="bench")
app.add_typer(runs_app, name="runs")
app.add_typer(log_app, name="log")
app.add_typer(chaos_app, name="chaos")

_mesh, _mapping = known.complete_shipped("meshes"), known.complete_shipped("mappings")
_benchmark = known.complete_shipped("benchmarks")
MeshFile = Annotated[
    Path,
    typer.Argument(metavar="MESH", autocompletion=_mesh, help="A mesh that ships, such as views, or a mesh file."),
]
Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="Orders to replay: a .parquet file, or text such as .csv and .tsv."),
]
MappingFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=_mapping,
        help="How the input's columns become orders: online-retail or another that ships, or a file.",
    ),
]


class Runtime(StrEnum):
    """What a mesh runs on."""

    ray = "ray"
    simulated = "simulated"


#: A request for each tick of the clock, which counts microseconds.
RATE_MAX = 1_000_000.0
#: A minute: every answer is waited for less.
RTT_MS_MAX = 60_000.0
#: 32 bits, as in most generators.
SEED_MAX = 2**32 - 1


def _show_version(asked: bool) -> None:
    if asked:
        from eventmesh.report.versions import versions

        for name, version in versions(("ray", "pyarrow")).items():
            typer.echo(f"{name} {version}")
        raise typer.Exit()


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Print the versions of what is at work."),
    ] = False,
) -> None:
    """What stands before the name of a command."""


@app.command()
def demo(
    json_output: Json = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=SEED_MAX, help="Which order.")] = 1,
) -> None:
    """One order, asked and told, side by side; simulated in seconds.

    \b
    Example:
      eventmesh demo
    """
    from eventmesh import shipped
    from eventmesh.shop.demo import tell

    stories = tell(shipped.folder("meshes"), seed=seed)
    show(stories, json_output, lambda screen: screen.stories(stories))


@app.command(cls=RunCommand)
def run(
    ctx: typer.Context,
    mesh: Annotated[
        Path | None,
        typer.Argument(metavar="MESH", autocompletion=_mesh, help="A mesh that ships, such as views, or a mesh file."),
    ] = None,
    name: Annotated[str | None, by_name("A mesh that is up, instead of a mesh file.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0.001, max=RATE_MAX, help="Requests per second; as fast as possible if not given."
        ),
    ] = None,
    rtt_ms: Annotated[
        float,
        typer.Option(metavar="X", min=0.0, max=RTT_MS_MAX, help="Emulated round trip between processes, milliseconds."),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=SEED_MAX, help="Seed of what is generated and of every chance.")
    ] = 0,
    runtime: Annotated[
        Runtime, typer.Option(help="Real processes on a local Ray, or a simulation on a virtual clock.")
    ] = Runtime.ray,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="An empty folder for the run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Check everything, start nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Run a mesh on a local Ray or simulated, or load one that is up; then audit everything.

    What is asked of the mesh comes from its application, and so do further options: with a mesh, `--help` shows them,
    too. On a mesh that is up, the audit judges every run so far; a request that the mesh knows already is counted as
    repeated, another one under its id is refused.

    \b
    Examples:
      eventmesh run views --orders 2000 --rate 500
      eventmesh run views --orders 200 --runtime simulated
      eventmesh run request --input orders.parquet \\
        --mapping online-retail
      eventmesh run --name shop --orders 2000
    """
    from eventmesh.lab import run as runs
    from eventmesh.lab import standing as meshes
    from eventmesh.lab.standing_record import find

    if name is not None and rtt_ms:
        raise InputError("--rtt-ms is for a mesh that is started for the run: one that is up goes at its own pace")
    if name is not None and runtime is Runtime.simulated:
        raise InputError("a mesh that is up runs on Ray: name a mesh file, such as views, for --runtime simulated")
    if output is not None:
        runs.must_be_empty(output)
    with progress() as (console, report):
        if name is not None:
            standing = find(name)
            prepare = meshes.preparing(standing, given(ctx), seed=seed, rate=rate)
            prepared = meshes.planned(standing, prepare)
        else:
            prepared = runs.prepare(cast(Path, mesh), given(ctx), seed=seed, rate=rate)
        finished, folder = None, None
        if not dry_run:
            folder = runs.empty_folder(output) if output else runs.new_folder(RUNS, name or prepared.mesh.name)
            if name is not None:
                finished = meshes.run(standing, prepare, folder, seed=seed, report=report, say=sayer(console))
            else:
                finished = runs.run(
                    prepared.mesh, prepared.workload, folder, seed=seed, rtt_ms=rtt_ms, runtime=runtime, report=report
                )
    if finished is None:
        show(prepared.summary(), json_output, lambda screen: screen.pairs(prepared.summary()))
        return
    document = finished.model_dump(mode="json", by_alias=True)
    show(document, json_output, lambda screen: screen.run(finished, folder))
    raise typer.Exit(VERDICTS[finished.verdict])


@app.command()
def up(
    mesh: Annotated[
        Path | None,
        typer.Argument(
            metavar="MESH",
            autocompletion=_mesh,
            help="A mesh that ships, or a mesh file; left out where the data directory holds one.",
        ),
    ] = None,
    name: Name = "shop",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its log is and stays.", show_default="data/NAME")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster to join; one of its own if not given.")
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST", help="Where its processes listen; beyond loopback only with a token.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token that every connection must carry.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Check everything, start nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Start a mesh that stays. It goes on with what its data directory holds.

    \b
    Examples:
      eventmesh up views --name shop
      eventmesh up --name shop --data data/shop
    """
    from eventmesh.lab import standing as meshes
    from eventmesh.lab.standing_record import DATA

    with progress() as (console, report):
        standing = meshes.up(
            mesh, name, data=data or DATA / name, address=address, listen=listen, token_file=token_file,
            dry_run=dry_run, report=report, say=sayer(console),
        )  # fmt: skip
    document = standing.model_dump(mode="json", by_alias=True)
    show(document, json_output, lambda screen: screen.pairs(document) if dry_run else screen.up(standing))


@app.command()
def down(name: Name = "shop", json_output: Json = False) -> None:
    """End a mesh that is up. Its data stays.

    \b
    Example:
      eventmesh down --name shop
    """
    from eventmesh.lab import standing as meshes

    standing, left = meshes.down(name)
    document = standing.model_dump(mode="json", by_alias=True) | {"unfinished": plain(left)}
    show(document, json_output, lambda screen: screen.down(standing, left))


@app.command()
def status(
    name: Name = "shop",
    watch: Annotated[bool, typer.Option("--watch", help="Every second, until Ctrl-C.")] = False,
    json_output: Json = False,
) -> None:
    """Processes, partitions, lag, views and asks of a mesh that is up.

    \b
    Examples:
      eventmesh status --name shop
      eventmesh status --name shop --watch
    """
    from eventmesh.lab.standing_record import find
    from eventmesh.lab.standing_status import watching

    with watching(find(name)) as look:
        if not watch:
            found = look()
            show(found, json_output, lambda screen: screen.status(found))
            return
        with suppress(KeyboardInterrupt):  # how it is meant to end
            show_again(look, json_output)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file: .tar, .tar.gz, .tgz or .tar.zst.")],
    name: Name = "shop",
    data: Data = None,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Copy a mesh's data into one file, also while the mesh is up.

    \b
    Examples:
      eventmesh backup shop.tar --name shop
      eventmesh backup shop.tar.zst --data data/shop
    """
    from eventmesh.lab import backup as backups
    from eventmesh.lab.standing_record import data_of

    with progress() as (_, report):
        taken = backups.take(data_of(name, data), file, dry_run=dry_run, report=report)
    show(taken, json_output, lambda screen: screen.backup(taken))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `eventmesh backup` wrote.")],
    name: Name = "shop",
    data: Data = None,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Make a data directory from a backup, to be started with `eventmesh up`.

    \b
    Example:
      eventmesh restore shop.tar --name shop
    """
    from eventmesh.lab import backup as backups
    from eventmesh.lab.standing_record import new_data

    folder = new_data(name, data)
    with progress() as (_, report):
        restored = backups.restore(file, folder, dry_run=dry_run, report=report)
    show(restored, json_output, lambda screen: screen.backup(restored))
    if not (json_output or dry_run):
        typer.echo(f"next: eventmesh up --name {name} --data {folder}")


@bench_app.command("list")
def bench_list(json_output: Json = False) -> None:
    """The benchmarks, and the question each answers.

    \b
    Example:
      eventmesh bench list
    """
    from benchmarks import catalog
    from eventmesh import shipped

    found = catalog.questions(shipped.folder("benchmarks"))
    show(found, json_output, lambda screen: screen.pairs(found))


@bench_app.command("run", cls=BenchCommand)
def bench_run(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=_benchmark, help="A benchmark of `eventmesh bench list`, or a file."
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="The quick grid: minutes, and labelled as quick.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="An empty folder for the results.")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=SEED_MAX, help="Seed of what is generated and of every chance.")
    ] = 0,
    mesh: Annotated[
        list[Path] | None,
        typer.Option(
            "--mesh", metavar="MESH", autocompletion=_mesh, help="A mesh to compare, by name or file; once for each."
        ),
    ] = None,
    runtime: Annotated[
        Runtime | None, typer.Option(help="What meshes that are compared run on; ray if not given.")
    ] = None,
    input_file: Input = None,
    mapping: MappingFile = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="List the points, measure nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Run a benchmark and write report.html, summary.md and run.json.

    `compare` takes any meshes of one application, and the options that its application gives to `eventmesh run`.

    \b
    Examples:
      eventmesh bench run join-scaling --quick
      eventmesh bench run compare --mesh views --mesh request --quick
      eventmesh bench run replay --input orders.parquet \\
        --mapping online-retail
    """
    from benchmarks import catalog
    from eventmesh import shipped
    from eventmesh.lab import run as runs

    if output is not None:
        runs.must_be_empty(output)
    with progress() as (console, report):
        chosen = {
            "input": input_file, "mapping": mapping, "meshes": mesh or None, "options": given(ctx),
            "runtime": runtime.value if runtime else None,
        }  # fmt: skip
        benchmark = catalog.load(shipped.folder("benchmarks"), name, quick=quick, given=chosen)
        points = benchmark.describe()
        if not dry_run:
            folder = runs.empty_folder(output) if output else runs.new_folder(RUNS, benchmark.name)
            with runs.writing(folder):
                finished = benchmark.run(folder, seed=seed, report=report, say=sayer(console))
    if dry_run:
        show(points, json_output, lambda screen: screen.line("\n".join(points)))
        return
    document = finished.model_dump(mode="json", by_alias=True)
    show(document, json_output, lambda screen: screen.benchmark(folder))
    raise typer.Exit(VERDICTS[finished.verdict])


@runs_app.command("list")
def runs_list(json_output: Json = False) -> None:
    """Every run with its size, the oldest first.

    \b
    Example:
      eventmesh runs list
    """
    from eventmesh.lab import pruning

    found = [folder.row() for folder in pruning.listed(RUNS)]
    show(found, json_output, lambda screen: screen.runs(found))


@runs_app.command("prune")
def runs_prune(
    keep: Annotated[int | None, typer.Option(metavar="N", min=0, help="Delete all but the newest so many.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Delete those that started longer ago, such as 7d or 12h.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would go, delete nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Delete old runs. It asks nothing; nothing else ever deletes a run.

    \b
    Examples:
      eventmesh runs prune --keep 10 --dry-run
      eventmesh runs prune --older-than 7d --dry-run
    """
    from datetime import UTC, datetime

    from eventmesh.lab import pruning

    older = pruning.older_than(older_than) if older_than is not None else None
    pruned = pruning.prune(RUNS, keep=keep, older=older, now=datetime.now(UTC), dry_run=dry_run)
    show(pruned, json_output, lambda screen: screen.pruned(pruned))


@app.command()
def trace(
    story: Annotated[
        str, typer.Argument(metavar="ID", help="What it is the story of: its correlation id, such as an order's id.")
    ],
    run_folder: RunFolder = None,
    name: MeshName = None,
    json_output: Json = False,
) -> None:
    """The whole story of one request, from the log alone.

    \b
    Example:
      eventmesh trace G00000001
    """
    from eventmesh.lab import inspect

    steps = inspect.trace(where(run_folder, name), story)
    show(steps, json_output, lambda screen: screen.trace(story, steps))


@app.command()
def describe(
    mesh: MeshFile,
    as_asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="Print its topics, facts, commands and queries as AsyncAPI 3, in JSON.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Check a mesh file and draw it as a Mermaid diagram.

    \b
    Examples:
      eventmesh describe views
      eventmesh describe views --asyncapi
    """
    from eventmesh import mesh as meshes
    from eventmesh import shipped

    loaded = meshes.load(shipped.find("meshes", mesh))
    if as_asyncapi:
        from eventmesh import asyncapi

        show(asyncapi.document(loaded), True, lambda screen: None)
        return
    show(loaded.resolved(), json_output, lambda screen: screen.line(loaded.diagram().removesuffix("\n")))


app.command()(fuzz)
app.command()(new)
app.command()(check)


def main() -> None:
    """Run the command line; however a command ends, that is an exit code and at most one message on stderr."""
    sys.exit(shell.carry_out(lambda: app(prog_name="eventmesh", standalone_mode=False) or 0))


if __name__ == "__main__":
    main()
