"""What a wiring needs of a mesh, and whether the mesh has it: topics to listen to, views to read, services to ask.

A rule that is never triggered does not fail: whoever waits for what it would have decided waits for ever. So a mesh is
held against its wiring when it is read. Which facts trigger a service the wiring's rules say, and on which topic they
come its declarations; what its rules read and send, its :class:`~eventmesh.service.Trigger` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from eventmesh import configuration
from eventmesh.configuration import nearest, suggestion
from eventmesh.declared import Declared, MessageType, name_of
from eventmesh.errors import ConfigurationError
from eventmesh.messages import ENVELOPE, REFUSAL, REFUSED
from eventmesh.service import Names, Service, Trigger, by_name
from eventmesh.views import ViewShape

_COMMON = frozenset(field.name for field in (*ENVELOPE, *REFUSAL))


@dataclass(frozen=True)
class Part:
    """What a mesh file says of one service, and its options as the application reads them."""

    listens: Sequence[str]
    views: Mapping[str, Sequence[str]]
    asks: Sequence[str]
    options: Any


@dataclass(frozen=True)
class Needs:
    """The needs of one wiring, held against a mesh file.

    ``owners`` has the owner of each topic of the mesh. Of the application, ``schemas`` are its topics, ``facts`` the
    types of fact on each of them, ``messages`` its commands and queries.
    """

    file: str
    wiring: str
    triggers: Mapping[str, Trigger]
    owners: Mapping[str, str]
    parts: Mapping[str, Part]
    schemas: Mapping[str, pa.Schema]
    facts: Mapping[str, Sequence[str]]
    messages: Mapping[str, MessageType]
    shapes: Mapping[str, ViewShape]
    services: Mapping[str, type[Service]]

    @classmethod
    def of(cls, package: Any, wiring: str, owners: Mapping[str, str], parts: Mapping[str, Part], file: str) -> Needs:
        """Those of an application's wiring. Of a package that is only read, views and services may be absent."""
        declared: Declared = package.DECLARED
        return cls(
            file, wiring, package.WIRINGS[wiring], owners, parts, declared.schemas, declared.kinds(), declared.messages,
            getattr(package, "VIEWS", {}), getattr(package, "SERVICES", {}),
        )  # fmt: skip

    def check(self, *, stored: bool = False) -> None:
        """Raises :class:`ConfigurationError` with the line to add, for the first thing that is missing.

        ``stored``: what a stored mesh has too much is passed over, with a warning.
        """
        for service, part in self.parts.items():
            trigger = self.triggers.get(service, Trigger())
            self._takes(service, trigger)
            self._hears(service, part, [name for name in trigger.rules if name not in self.messages])
            self._reads(service, part, named(trigger.reads, part.options))
            self._asks(service, part, named(trigger.sends, part.options))
            for name in named(trigger.until_answered, part.options):
                if name not in self.messages:
                    problem = f"{service} asks {name!r} until it is answered, which is no command or query"
                    raise self._error("wiring", problem, suggestion(name, self.messages))
            self._heeds(service, part, trigger, stored=stored)

    # --- rules -------------------------------------------------------------------------------

    def _takes(self, service: str, trigger: Trigger) -> None:
        """A rule for what is asked of another service, or answered without a rule, would never be called."""
        where = f"in wiring {self.wiring!r} {service}"
        for name in (*trigger.rules, *trigger.resume):
            message = self.messages.get(name)
            if message is not None and message.service != service:
                problem = f"{where} has a rule for {name}, which is sent to {message.service}"
                raise self._error("wiring", problem, f"Give the rule to {message.service}")
            if message is not None and message.kind == "query":
                problem = f"{where} has a rule for {name}, which is a query"
                raise self._error("wiring", problem, f"Queries change nothing: add {name} to the queries of {service}")
        for name in trigger.resume:
            if name not in trigger.rules:
                problem = f"{where} carries on {name} after a restart, and has no rule for it"
                raise self._error("wiring", problem, suggestion(name, trigger.rules))

    def _heeds(self, service: str, part: Part, trigger: Trigger, *, stored: bool) -> None:
        """A topic of whose facts no rule takes any is read for nothing."""
        for place, topic in enumerate(part.listens):
            kinds = self.facts.get(topic, ())
            if any(kind in trigger.rules for kind in (*kinds, REFUSED)):
                continue
            path = f"services.{service}.listens[{place}]"
            problem = f"in wiring {self.wiring!r} no rule of {service} takes a fact of {topic}: it reads for nothing"
            if stored:
                configuration.passed_over(problem, file=self.file, path=path)
                continue
            left = _list(each for each in part.listens if each != topic)
            hint = f"Write under services.{service}: listens: {left}, or add a rule for {' or '.join(kinds)}"
            raise self._error(path, problem, hint)

    # --- topics ------------------------------------------------------------------------------

    def _hears(self, service: str, part: Part, kinds: Sequence[str]) -> None:
        own = {topic for topic, owner in self.owners.items() if owner == service}
        kinds = [kind for kind in kinds if own.isdisjoint(self._topics_of(kind, service))]  # it hears itself
        for kind in kinds:
            topics = self._topics_of(kind, service)
            if topics and not any(topic in part.listens for topic in topics):
                problem = f"in wiring {self.wiring!r} it acts on {kind}, a fact of {' or '.join(topics)}"
                self._topic_is_there(f"services.{service}.listens", problem, topics)
                needed = [self._topics_of(each, service) for each in kinds]
                lines = self._in_order([*part.listens, *(each[0] for each in needed if each)])
                raise self._missing(service, "listens", f"{problem}, and does not listen to it", _list(lines))

    def _topics_of(self, kind: str, service: str) -> list[str]:
        if kind == REFUSED:  # whoever owns a topic may have refused something there
            return [topic for topic, owner in self.owners.items() if owner != service]
        topics = [topic for topic, kinds in self.facts.items() if kind in kinds]
        if not topics:
            known = {each for kinds in self.facts.values() for each in kinds} | set(self.messages)
            problem = f"{service} has a rule for {kind!r}, which is no fact, command or query of the application"
            raise self._error("wiring", problem, suggestion(kind, known))
        return topics

    # --- views -------------------------------------------------------------------------------

    def _reads(self, service: str, part: Part, views: Sequence[str]) -> None:
        for view in views:
            if view not in part.views:
                problem = f"in wiring {self.wiring!r} it reads the view {view!r}"
                self._topic_is_there(f"services.{service}.views", problem, self._sources(view))
                every = {**part.views, **{each: self._present(self._sources(each)) for each in views}}
                raise self._missing(service, "views", f"{problem}, and has none", _mapping({**every, **part.views}))

    def _sources(self, view: str) -> list[str]:
        """The topics that a view can be folded from: they have its columns and its types of fact."""
        if view not in self.shapes:
            raise self._error("wiring", f"it reads the view {view!r}", suggestion(view, self.shapes))
        shape = self.shapes[view]
        columns = set(shape.reads) - _COMMON
        topics = [topic for topic, schema in self.schemas.items() if columns <= set(schema.names)]
        if shape.types:
            return [topic for topic in topics if set(self.facts.get(topic, ())) & set(shape.types)]
        return topics

    # --- asks --------------------------------------------------------------------------------

    def _asks(self, service: str, part: Part, sends: Sequence[str]) -> None:
        for name in sends:
            if name not in self.messages:
                problem = f"{service} sends {name!r}, which is no command or query of the application"
                raise self._error("wiring", problem, suggestion(name, self.messages))
            asked = self.messages[name].service
            problem = f"in wiring {self.wiring!r} it sends {name} to {asked}"
            if asked not in self.parts:
                hint = f"Write under services: {asked}: {{}}"
                raise self._error(f"services.{service}.asks", f"{problem}, which is not described", hint)
            self._answered(service, name, self.messages[name])
            if asked != service and asked not in part.asks:
                needed = [self.messages[each].service for each in sends if each in self.messages]
                lines = [each for each in self.parts if each in {*part.asks, *needed} - {service}]
                raise self._missing(service, "asks", f"{problem}, and does not ask it", _list(lines))

    def _answered(self, asker: str, name: str, message: MessageType) -> None:
        """Whoever sends a command that no rule takes would repeat it for ever."""
        asked = message.service
        if message.kind == "command":
            known: Iterable[str] = self.triggers.get(asked, Trigger()).rules
            lacks, hint = "has no rule for it", f"Give {asked} a rule: {name!r} in the wiring's Trigger of {asked}"
        else:
            service = self.services.get(asked)
            known = (name,) if service is None else by_name(service.queries)
            lacks, hint = "does not answer it", f"Add {name!r} to the queries of {asked}"
        if name not in known:
            problem = f"in wiring {self.wiring!r} {asker} sends {name} to {asked}, which {lacks}"
            raise self._error("wiring", problem, ". ".join(part for part in (hint, nearest(name, known)) if part))

    # --- what to write -----------------------------------------------------------------------

    def _topic_is_there(self, path: str, problem: str, topics: Sequence[str]) -> None:
        if topics and not self._present(topics):
            topic = topics[0]
            ownerless = [service for service in self.triggers if service not in self.owners.values()]
            owner = ownerless[0] if len(ownerless) == 1 else "SERVICE"
            hint = f"Write under topics: {topic_line(topic, owner, self.schemas[topic])}"
            if owner != "SERVICE" and owner not in self.parts:
                hint += f", and under services: {owner}: {{}}"
            elif owner == "SERVICE":
                hint += f", with the service that owns it, one of: {', '.join(ownerless) or 'none'}"
            raise self._error(path, f"{problem}, but the mesh has no topic {topic!r}", hint)

    def _present(self, topics: Iterable[str]) -> list[str]:
        return [topic for topic in topics if topic in self.owners]

    def _in_order(self, topics: Iterable[str]) -> list[str]:
        wanted = set(topics)
        return [topic for topic in self.owners if topic in wanted]

    def _missing(self, service: str, key: str, problem: str, value: str) -> ConfigurationError:
        return self._error(f"services.{service}.{key}", problem, f"Write under services.{service}: {key}: {value}")

    def _error(self, path: str, problem: str, hint: str) -> ConfigurationError:
        return ConfigurationError(problem, file=self.file, path=path, hint=hint)


def topic_line(topic: str, owner: str, schema: pa.Schema) -> str:
    """What a mesh file says of a topic at least; the first of its own columns is taken as its key."""
    key = next((name for name in schema.names if name not in _COMMON), "KEY")
    return f"{topic}: {{owner: {owner}, key: {key}}}"


def named(names: Names, options: Any) -> list[str]:
    """The names that a trigger gives, once each; some depend on the service's options."""
    return list(dict.fromkeys(map(name_of, names(options) if callable(names) else names)))


def _list(names: Iterable[str]) -> str:
    return f"[{', '.join(names)}]"


def _mapping(views: Mapping[str, Iterable[str]]) -> str:
    return "{" + ", ".join(f"{view}: {_list(topics)}" for view, topics in views.items()) + "}"
