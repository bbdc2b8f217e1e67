"""``eventmesh run`` and ``bench run``: beside their own options they have those of the application whose mesh they run.

Which application that is, the command line itself says, by the mesh that it names. So that is looked for before the
rest is parsed; from then on an option of the application is like any other: it is checked, completed, and has its line
in ``eventmesh run MESH --help``.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eventmesh import shipped
from eventmesh.errors import EventmeshError, InputError
from eventmesh.lab import known
from eventmesh.lab.examples import Command

#: How a value of each type is named in a line of help.
METAVARS: Mapping[type, str] = {int: "N", float: "X", Path: "FILE", str: "TEXT"}
_OPTIONS, _GIVEN = "options of the application", "given to the application"


class _OfAnApplication(Command):
    """A command with the options of the application in place as soon as a mesh is named."""

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
        model = self.model(*self._named(ctx, args))
        own = {each for option in super().get_params(ctx) for each in option.opts}
        for option in options_of(model) if model is not None else ():
            if own.isdisjoint(option.opts):  # what is the command's own, it passes on
                option.expose_value, option.callback = False, _keep
                yield option

    @abstractmethod
    def model(self, words: Sequence[str], values: Mapping[str, Sequence[str]]) -> type[BaseModel] | None:
        """What is chosen from, by the words of the command line that are no options, and the values of each option."""

    def _named(self, ctx: Any, args: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
        """The words that are no options, nor an option's value; and the values of each option.

        Every option of an application takes a value, so what is not known here is taken for one of those.
        """
        flags = {
            each for option in super().get_params(ctx) if getattr(option, "is_flag", False) for each in option.opts
        }
        named, values, words = list[str](), dict[str, list[str]](), iter(args)
        for word in words:
            option, is_joined, value = word.partition("=")
            if not word.startswith("-") or word == "-":
                named.append(word)
            elif option not in flags and (word.startswith("--") or len(word) == len("-o")):
                values.setdefault(option, []).append(value if is_joined else next(words, ""))
        return named, values


class RunCommand(_OfAnApplication):
    """``eventmesh run``."""

    def model(self, words: Sequence[str], values: Mapping[str, Sequence[str]]) -> type[BaseModel] | None:
        """Of the mesh file, or of the mesh that is up."""
        names = values.get("--name", [])
        if bool(words) == bool(names):
            raise InputError("name either a mesh, such as views, or with --name a mesh that is up")
        from eventmesh.lab import run
        from eventmesh.lab.standing_record import find

        return run.options_model(Path(words[0]) if words else find(names[-1]).data / run.MESH_FILE)


class BenchCommand(_OfAnApplication):
    """``eventmesh bench run``."""

    def model(self, words: Sequence[str], values: Mapping[str, Sequence[str]]) -> type[BaseModel] | None:
        """Of the first mesh that is named, or else of the benchmark's file; None where it takes no meshes."""
        if not words:
            return None  # the command says what is missing
        from eventmesh.configuration import read
        from eventmesh.lab import run

        file = Path(words[0])
        if file.suffix not in (".yaml", ".yml"):
            file = shipped.folder("benchmarks") / f"{file}.yaml"
        meshes = read(file).get("meshes") if file.is_file() else None
        if not isinstance(meshes, list):
            return None  # of another kind; or there is no such file, of which the command says so
        named = [*values.get("--mesh", []), *meshes]
        return run.options_model(Path(str(named[0]))) if named else None


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
