"""Which benchmarks there are, and how their files are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.backbone import Backbone
from benchmarks.benchmark import Benchmark
from benchmarks.compare import Compare
from benchmarks.join_scaling import JoinScaling
from benchmarks.order_flow import OrderFlow
from benchmarks.recovery import Recovery
from benchmarks.replay import Replay
from benchmarks.simulation import SimulatedSeeds
from eventmesh import configuration
from eventmesh.configuration import suggestion
from eventmesh.errors import ConfigurationError, InputError, NotFound

#: By the ``name`` in the benchmark's file.
KINDS: dict[str, type[Benchmark]] = {
    "backbone": Backbone,
    "compare": Compare,
    "join-scaling": JoinScaling,
    "order-flow": OrderFlow,
    "recovery": Recovery,
    "replay": Replay,
    "simulation": SimulatedSeeds,
}
#: Options of the command line that have another name than the setting.
FLAGS = {"meshes": "mesh"}


def questions(folder: Path) -> dict[str, str]:
    """The name of each benchmark and the question it answers."""
    return {path.stem: str(configuration.read(path).get("question", "")) for path in sorted(folder.glob("*.yaml"))}


def load(folder: Path, name: str, *, quick: bool, given: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark called ``name``, or of the file of that path. ``quick`` takes the file's quick grid.

    ``given`` are settings that the user gave beside the file, and that win over it; None is not given.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise NotFound(f"no benchmark {name!r}. {suggestion(name, questions(folder))}")
    document: dict[str, Any] = configuration.read(path)
    kind = _kind(document, path)
    overrides = document.pop("quick", {})
    if not isinstance(overrides, dict):
        raise ConfigurationError(
            f"must be a mapping of settings to their quick values, found {configuration.describe(overrides)}",
            file=str(path), path="quick",
        )  # fmt: skip
    if quick and not overrides:
        problem = "the key 'quick' is missing, so --quick would measure the whole grid"
        hint = "Leave --quick out, or write quick: with the settings that it replaces"
        raise ConfigurationError(problem, file=str(path), hint=hint)
    if quick:
        document = _over(document, overrides)
    chosen = kind.settings_type.given(given or {})
    document = _over(document, _known({key: value for key, value in chosen.items() if value not in (None, {})}, kind))
    settings = configuration.validate(kind.settings_type, document, file=str(path))
    return kind(settings, quick=quick, meshes=folder.parent / "meshes")


def _over(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with ``overrides``, mapping by mapping."""
    merged = {
        key: _over(document[key], value) if isinstance(value, dict) and isinstance(document.get(key), dict) else value
        for key, value in overrides.items()
    }
    return {**document, **merged}


def _kind(document: Mapping[str, Any], path: Path) -> type[Benchmark]:
    name = document.get("name")
    if name not in KINDS:
        raise ConfigurationError(
            f"no benchmark is called {configuration.describe(name)}", file=str(path), path="name",
            hint=suggestion(name, KINDS),
        )  # fmt: skip
    return KINDS[name]


def _known(given: Mapping[str, Any], kind: type[Benchmark]) -> Mapping[str, Any]:
    for key in given.keys() - kind.settings_type.model_fields.keys():
        takers = sorted(name for name, each in KINDS.items() if key in each.settings_type.model_fields)
        raise InputError(f"--{FLAGS.get(key, key)} is for {', '.join(takers)} only")
    return given
