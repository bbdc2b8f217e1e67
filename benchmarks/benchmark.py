"""What all benchmarks share: their settings, the record that they keep while they run, and room for their logs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from eventmesh.report import record, report
from eventmesh.report.machine import Watch
from eventmesh.report.measure import threshold
from eventmesh.report.progress_bar import Report
from eventmesh.shop import WORDS

Say = Callable[[str], None]
Sample = TypeVar("Sample")


#: Of a mesh of the shop: a broker, seven services and a load generator. Ray has so many ready.
PROCESSES = 9
#: The largest number that a benchmark's file may give, by the end of its key. A window of a day, a request for each
#: tick of the clock (a microsecond), a minute of delay: beyond, a machine or a person gives up first. All else counts
#: rows, orders or repetitions, of which a billion take days.
LARGEST: Mapping[str, float] = {"_per_s": 1e6, "rate": 1e6, "_ms": 60_000, "_s": 86_400, "repetitions": 1_000, "": 1e9}


class Part(BaseModel):
    """A part of a benchmark's file: unknown keys are refused, and so are numbers that nobody can mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("*")
    @classmethod
    def _within_reason(cls, value: Any, field: ValidationInfo) -> Any:
        largest = next(most for end, most in LARGEST.items() if str(field.field_name).endswith(end))
        for number in _numbers(value):
            if not abs(number) <= largest:  # so written that it holds for nan, too
                raise PydanticCustomError("too_large", "must be at most {largest}", {"largest": f"{largest:,.0f}"})
        return value

    @field_validator("*")
    @classmethod
    def _is_a_threshold(cls, value: Any, field: ValidationInfo) -> Any:
        if "target" in str(field.field_name):
            for target in value.values() if isinstance(value, dict) else [value]:
                try:
                    threshold(target)
                except ValueError:
                    said = "must be one of < <= > >= == and a number, such as '<1000'"
                    raise PydanticCustomError("threshold", said) from None
        return value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))


class Settings(Part):
    """What the file of any benchmark says."""

    version: Literal["eventmesh.benchmark/1"] = Field(alias="schema")
    name: str
    question: str
    repetitions: int = Field(ge=1)

    @classmethod
    def given(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings that a user gave on the command line, by the names that they have in a file."""
        return options


class Benchmark(Protocol):
    """One question, answered by measuring. ``name`` is that of the run; a quick one says so."""

    settings_type: ClassVar[type[Settings]]
    name: str

    def __init__(self, settings: Any, *, quick: bool, meshes: Path) -> None:
        """``settings`` are of ``settings_type``, the quick grid in them already; ``meshes`` holds the mesh files."""

    def describe(self) -> list[str]:
        """What would be measured, a line each."""

    def run(self, folder: Path, *, seed: int, report: Report, say: Say) -> record.Run:
        """Measure, and leave records and reports in ``folder``."""


def label(settings: Settings, *, quick: bool) -> str:
    """The name of a run: a quick one cannot be taken for a full one."""
    return settings.name + ("-quick" if quick else "")


def begin(
    name: str, settings: Settings, *, seed: int, durability: str, warmup_s: float = 0.0, **known: Any
) -> record.Run:
    """The record of a benchmark that starts now; ``known`` holds further fields of it."""
    return record.start(
        name, seed=seed, config=settings.model_dump(mode="json", by_alias=True), source=Path(__file__).parent,
        now=datetime.now(UTC), durability=durability, warmup_s=warmup_s, **({"words": WORDS} | known),
    )  # fmt: skip


def recorded(
    folder: Path,
    begun: record.Run,
    measuring: Generator[Sample, None, None],
    *,
    say: Say,
    line: Callable[[Sample], str],
    conclude: Callable[[list[Sample]], Mapping[str, Any]],
) -> record.Run:
    """Measure to the end and write record and reports; what was measured is kept when it ends early.

    ``line`` tells a sample as it comes; ``conclude`` gives the fields of the run that follow from all samples.
    """
    samples: list[Sample] = []
    status: record.Status = "aborted"
    watch = Watch()
    try:
        with watch, closing(measuring):
            for sample in measuring:
                samples.append(sample)
                say(line(sample))
        status = "complete"
    finally:
        run = begun.model_copy(update={"status": status, "machine_use": watch.use, **conclude(samples)})
        record.write(folder, run)
        report.write(folder, run)
    return run


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the log of one mesh, gone when its audit is done: the log of a benchmark is large."""
    room = folder / "work"
    room.mkdir(parents=True)
    try:
        yield room
    finally:
        shutil.rmtree(room)
