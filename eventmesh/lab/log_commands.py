"""``eventmesh log``: what a run, or a mesh that is up, has in its log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from eventmesh.errors import InputError
from eventmesh.lab import known, shell
from eventmesh.lab.command_line import Json, MeshName, RunFolder, json_line, show, where
from eventmesh.lab.examples import Commands

Topic = Annotated[
    str,
    typer.Argument(metavar="TOPIC", autocompletion=known.complete_topic, help="A topic of `eventmesh log topics`."),
]

log_app = Commands(
    help="Look into a run's log.\n\n\b\nExample:\n  eventmesh log topics",
)


@log_app.command("topics")
def log_topics(run_folder: RunFolder = None, name: MeshName = None, json_output: Json = False) -> None:
    """Topics, owners and offsets of a run.

    \b
    Example:
      eventmesh log topics
    """
    from eventmesh.lab import inspect

    found = inspect.topics(where(run_folder, name))
    show(found, json_output, lambda screen: screen.table([asdict(row) for row in found]))


@log_app.command("read")
def log_read(
    topic: Topic,
    partition: Annotated[int, typer.Option(metavar="N", min=0, help="The partition of the topic.")] = 0,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="The first offset.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many records.")] = 20,
    run_folder: RunFolder = None,
    name: MeshName = None,
    json_output: Json = False,
) -> None:
    """Records of one partition, control records included.

    \b
    Example:
      eventmesh log read stock --partition 1 --offset 10 --limit 5
    """
    from eventmesh.lab import inspect

    rows = inspect.read(where(run_folder, name), topic, partition, offset, limit)
    show(rows, json_output, lambda screen: screen.records(rows, f"{topic}/{partition}", offset))


@log_app.command("tail")
def log_tail(
    topic: Topic,
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", min=0, help="The last so many records.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    run_folder: RunFolder = None,
    name: MeshName = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each record.")] = False,
) -> None:
    """The last records of a topic, and on a mesh that is up those that come.

    \b
    Examples:
      eventmesh log tail orders
      eventmesh log tail orders --name shop --follow
    """
    from eventmesh.lab import inspect
    from eventmesh.lab.standing_record import find
    from eventmesh.lab.standing_status import follow as follow_topic
    from eventmesh.lab.terminal import Screen

    folder = where(run_folder, name)
    if follow and name is None:
        raise InputError("a run that is over grows no more: --follow is for a mesh that is up, with --name")
    say = json_line if json_output else Screen().record
    ends = inspect.tail(folder, topic, limit, say)
    if follow and name is not None:
        with shell.while_read():
            follow_topic(find(name), topic, ends, say)


@log_app.command("verify")
def log_verify(run_folder: RunFolder = None, name: MeshName = None, json_output: Json = False) -> None:
    """Check every checksum of a run's log. Exit code 3 where something is damaged.

    \b
    Example:
      eventmesh log verify
    """
    from eventmesh.lab import inspect

    findings = inspect.verify(where(run_folder, name))
    show(findings, json_output, lambda screen: screen.findings(findings))
    raise typer.Exit(3 if any(finding.damage for finding in findings) else 0)
