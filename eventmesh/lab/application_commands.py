"""``eventmesh new`` and ``eventmesh check``: an application of one's own, begun and looked over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventmesh.lab import known
from eventmesh.lab.command_line import DryRun, Json, show

#: What a mesh exits with in which something is wrong that its file does not show, as an audit does.
INVALID = 3
SEED_MAX = 2**32 - 1


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the package is called: a Python name, new here.")],
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Begin an application: a package with two services, asked and told, which runs as it is.

    It is written into the folder NAME of the current folder: facts, two services, two wirings with a mesh file each, a
    workload, a check and tests, to be changed step by step (docs/tutorial.md).

    \b
    Example:
      eventmesh new workshop
    """
    from eventmesh.lab import scaffold

    made = scaffold.new(name, Path.cwd(), dry_run=dry_run)
    show(made, json_output, lambda screen: screen.made(made, dry_run=dry_run))


def check(
    mesh: Annotated[
        Path,
        typer.Argument(
            metavar="MESH",
            autocompletion=known.complete_shipped("meshes"),
            help="A mesh that ships, such as views, or a mesh file.",
        ),
    ],
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=SEED_MAX, help="Seed of the facts that are folded.")] = 0,
    json_output: Json = False,
) -> None:
    """Check a mesh and its application; start nothing.

    The mesh file and the declarations are read, and all that any command would refuse is refused. Then the facts of a
    short simulated run are folded again, all at once and one by one: a fold that throws dice, or that depends on how
    facts are cut into batches, is found with the first fact that shows it. What it cannot check, it says.

    Exit code 0: nothing is wrong; 2: the mesh or its application is refused; 3: a rule breaks, or a fold is wrong.

    \b
    Examples:
      eventmesh check views
      eventmesh check views --seed 7 --json
    """
    from eventmesh.lab import check as checks

    checked = checks.check(mesh, seed=seed)
    show(checks.document(checked), json_output, lambda screen: screen.checked(checked))
    raise typer.Exit(0 if checked.verdict == "valid" else INVALID)
