"""``eventmesh run``: beside its own options it has those of the application whose mesh it runs.

Which application that is, the command line itself says, by the mesh that it names. So that is looked for before the
rest is parsed; from then on an option of the application is like any other: it is checked, completed, and has its line
in ``eventmesh run MESH --help``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eventmesh.errors import EventmeshError, InputError
from eventmesh.lab import known
from eventmesh.lab.examples import Command

#: How a value of each type is named in a line of help.
METAVARS: Mapping[type, str] = {int: "N", float: "X", Path: "FILE", str: "TEXT"}
_OPTIONS, _GIVEN = "options of the application", "given to the application"


class RunCommand(Command):
    """The command, with the options of the application in place as soon as a mesh is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Find the mesh first; one that is not there is an error as ever, unless only help or completion is wanted."""
        try:
            ctx.meta[_OPTIONS] = list(self._of_application(ctx, args))
        except EventmeshError:
            if not (ctx.resilient_parsing or "--help" in args):
                raise
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then the application's options, then ``--help``."""
        *own, asks_for_help = super().get_params(ctx)
        return [*own, *ctx.meta.get(_OPTIONS, ()), asks_for_help]

    def _of_application(self, ctx: Any, args: Sequence[str]) -> Iterator[Any]:
        mesh, name = self._named(ctx, args)
        if (mesh is None) == (name is None):
            raise InputError("name either a mesh, such as views, or with --name a mesh that is up")
        for option in options_of(_model(mesh, name)):
            option.expose_value, option.callback = False, _keep
            yield option

    def _named(self, ctx: Any, args: Sequence[str]) -> tuple[str | None, str | None]:
        """The first word that is no option, nor an option's value; and the value of ``--name``.

        Every option of an application takes a value, so what is not known here is taken for one of those.
        """
        flags = {
            each for option in super().get_params(ctx) if getattr(option, "is_flag", False) for each in option.opts
        }
        mesh, name, words = None, None, iter(args)
        for word in words:
            option, is_joined, value = word.partition("=")
            if not word.startswith("-") or word == "-":
                mesh = mesh if mesh is not None else word
            elif option not in flags and (word.startswith("--") or len(word) == len("-o")):
                value = value if is_joined else next(words, "")
                name = value if option == "--name" else name
        return mesh, name


def options_of(model: type[BaseModel]) -> list[Any]:
    """A command's option for each field that ``model`` has beyond those that every load has."""
    from eventmesh.workload import WorkloadOptions

    fields = {name: each for name, each in model.model_fields.items() if name not in WorkloadOptions.model_fields}
    if not fields:
        return []

    def load(**given: Any) -> None:
        """Only its parameters are wanted."""

    load.__annotations__ = {name: Annotated[each.annotation, _option(name, each)] for name, each in fields.items()}
    load.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=annotation)
        for (name, each), annotation in zip(fields.items(), load.__annotations__.values(), strict=True)
    ])  # fmt: skip
    app = typer.Typer(add_completion=False)
    app.command()(load)
    return list(typer.main.get_command(app).params)


def given(ctx: Any) -> dict[str, Any]:
    """The values of the application's options that were typed, by the names of its fields."""
    return dict(ctx.meta.get(_GIVEN, {}))


def _keep(ctx: Any, param: Any, value: Any) -> Any:
    if ctx.get_parameter_source(param.name).name != "DEFAULT":
        ctx.meta.setdefault(_GIVEN, {})[param.name] = value
    return value


def _model(mesh: str | None, name: str | None) -> type[BaseModel]:
    from eventmesh.lab import run
    from eventmesh.lab.standing_record import find

    file = Path(mesh) if mesh is not None else find(str(name)).data / run.MESH_FILE
    return run.options_model(file)


def _option(name: str, field: FieldInfo) -> Any:
    types = [each for each in METAVARS if each is field.annotation or each in getattr(field.annotation, "__args__", ())]
    least = next((each.ge for each in field.metadata if hasattr(each, "ge")), None)
    most = next((each.le for each in field.metadata if hasattr(each, "le")), None)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=METAVARS[types[0]] if types else "VALUE",
        help=field.description or "",
        min=cast(Any, least),
        max=cast(Any, most),
        autocompletion=known.complete_shipped(cast(Any, extra["ships"])) if "ships" in extra else None,
    )
