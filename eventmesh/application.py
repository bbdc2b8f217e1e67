"""What an application is to the framework: a package that has its parts as attributes, under these names.

A mesh file names the package. The framework knows no business of its own: the facts, the services, what callers ask,
and even the words in which a report speaks of it, come from there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Protocol

from pydantic import BaseModel

from eventmesh.declared import Declared
from eventmesh.errors import ConfigurationError
from eventmesh.service import Service, Trigger
from eventmesh.views import ViewShape

TO_READ = ("DECLARED", "OPTIONS", "WIRINGS")
TO_RUN = (*TO_READ, "SERVICES", "VIEWS")


@dataclass(frozen=True)
class Words:
    """The words for what an application's callers ask for, as reports, progress and messages use them."""

    request: str = "request"
    requests: str = "requests"
    a_request: str = "a request"
    #: How a service may learn what it does not own, as a report calls each way, by the name that a benchmark uses.
    joins: Mapping[str, str] = field(default_factory=dict)
    #: The ways in which its services can be put together, whether or not a mesh of each ships: a report says which of
    #: them were not measured.
    wirings: tuple[str, ...] = ()


#: What is said where an application has no words of its own.
PLAIN_WORDS = Words()


class Package(Protocol):
    """What the package named by a mesh file must have as attributes for the file to be read."""

    #: The facts, commands and queries.
    DECLARED: Declared
    #: The model of each service's own options, by service name. A service without an entry does not exist.
    OPTIONS: Mapping[str, type[BaseModel]]
    #: What triggers each service, by wiring and service.
    WIRINGS: Mapping[str, Mapping[str, Trigger]]


class Application(Package, Protocol):
    """What the package must have besides for the mesh to be run. What it may have stands in :data:`OPTIONAL`."""

    #: The services, by name.
    SERVICES: Mapping[str, type[Service]]
    #: How facts become a table, by view name. Where a package has it, a mesh file names no other views.
    VIEWS: Mapping[str, ViewShape]


#: What an application may have besides, and what holds where it has none.
OPTIONAL: Mapping[str, Any] = MappingProxyType(
    {
        # Checks of the business, by id: they join the framework's own in every audit.
        "CHECKS": {},
        # Those of them that hold facts of different services against their times: good as far as clocks are.
        "TIMED_CHECKS": (),
        # ``totals(evidence)``: counts that stand beside the outcomes of a run, by name.
        "totals": None,
        # ``workload(options)``: what callers ask. Without it there is nothing to run.
        "workload": None,
        # The model of what a user may choose of the workload: eventmesh.workload.WorkloadOptions, or a subclass.
        "WORKLOAD": None,
        # What a fuzzer varies beside the faults: eventmesh.workload.Variation, or a subclass. None: the former.
        "VARIATION": None,
        # The words for what callers ask for.
        "WORDS": PLAIN_WORDS,
        # The column whose values name the stories that people ask for (`eventmesh trace`): None: any correlation id.
        "STORY": None,
    }
)


def optional(package: Any, name: str) -> Any:
    """A part that an application may have, or what holds where it has none (:data:`OPTIONAL`)."""
    return getattr(package, name, OPTIONAL[name])


def load_package(package: str, *, file: str = "", parts: Sequence[str] = TO_READ) -> ModuleType:
    """Import the application ``package``, also from the current folder, where it is not to be found elsewhere.

    Raises :class:`ConfigurationError` where it is absent or lacks a part.
    """
    _look_here_for(package.partition(".")[0])
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        hint = "Is it installed, in the current folder, or its folder on PYTHONPATH?"
        raise ConfigurationError(
            f"the package {package!r} cannot be imported: {error}", file=file, path="application", hint=hint
        ) from error
    except Exception as error:  # whatever its code does when it is imported
        problem = f"the package {package!r} fails when it is imported: {type(error).__name__}: {error}"
        hint = f"See where: python -c 'import {package}'"
        raise ConfigurationError(problem, file=file, path="application", hint=hint) from error
    missing = [part for part in parts if not hasattr(module, part)]
    if missing:
        problem = f"the package {package!r} is not an application: it has no {', '.join(missing)}"
        raise ConfigurationError(problem, file=file, path="application", hint="Name a package that has them")
    return module


def _look_here_for(top: str) -> None:
    """Behind all other places: a file that lies here by chance takes the place of no library."""
    here = str(Path.cwd())
    if top not in sys.modules and here not in sys.path and find_spec(top) is None:
        sys.path.append(here)
        importlib.invalidate_caches()  # what was written a moment ago is found, too
