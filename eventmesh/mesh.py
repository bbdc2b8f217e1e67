"""The description of a mesh: its topics with their owners, its services, what each listens to, views and asks.

A :class:`Mesh` in hand is consistent: ownership, names, instances and context boundaries were checked when it was
read. It says who takes part; the application's wiring says how, and a runtime brings it to life.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from eventmesh import configuration
from eventmesh.application import TO_RUN, Application, Package, Words, load_package, optional
from eventmesh.configuration import no_effect, suggestion
from eventmesh.declared import MessageType, has_key
from eventmesh.errors import ConfigurationError, NotFound
from eventmesh.log.manifest import gone_on_with
from eventmesh.log.topic import Compatibility, Topic, TopicSettings
from eventmesh.messages import ENVELOPE, REFUSAL
from eventmesh.needs import Needs, Part, named, topic_line
from eventmesh.policies import AskPolicy, Policy, policy_of
from eventmesh.policies import Check as PolicyCheck
from eventmesh.progress import position_name
from eventmesh.service import Place, Service, Trigger
from eventmesh.shape_checks import Misshapen, ShapeCheck
from eventmesh.sources import Sources, sources_of
from eventmesh.states import NoSnapshot, state_type
from eventmesh.views import View, ViewShape

SCHEMA = "eventmesh.mesh/1"
#: Kafka's policy that is not carried out yet, and the key that asks for it.
COMPACT, POLICY = "compact", "cleanup.policy"
#: Kafka's legal topic names, less those that begin with a dot: names become folders and Mermaid labels.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,248}$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
#: Each partition has files, an epoch and a fold of its own, all in one broker: a thousand to a topic is ten times what
#: people run on one machine.
PARTITIONS_MAX = 1_000
#: Each instance is a process of its own, of a tenth of a gigabyte.
INSTANCES_MAX = 256
#: Times are microseconds in 64 bits: as many milliseconds are 292,000 years. Who means "for ever" writes -1.
MILLISECONDS_MAX = (2**63 - 1) // 1_000
BYTES_MAX = 2**63 - 1
#: Kafka's own limit, since positions in a segment's index are taken for 32 bits by its tools.
SEGMENT_BYTES_MAX = 2**31 - 1
#: A frame between processes takes 64 MiB, with the batch's header and, for a reader, other batches beside it.
MESSAGE_BYTES_MAX = 32 << 20
#: So many rows between two snapshots are, at a hundred bytes each, more than a log on one disk holds.
SNAPSHOT_ROWS_MAX = 1_000_000_000
_RESERVED_COLUMNS = frozenset(field.name for field in (*ENVELOPE, *REFUSAL))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_name=False, defer_build=True)


class LogSection(_Section):
    """How the log is kept: broker actors, and what an acknowledged fact survives (promise P1)."""

    brokers: int = Field(
        1,
        ge=1,
        json_schema_extra={"maximum": 1},
        description="Broker actors. One is what there is: it holds all partitions.",
    )
    durability: Literal["memory", "os", "fsync"] = Field(
        "os", description="memory: nothing survives; os: the death of any process; fsync: the death of the machine."
    )
    snapshot_rows: int | None = Field(
        100_000,
        ge=1,
        le=SNAPSHOT_ROWS_MAX,
        description="Rows after which a partition's state, or a view, is written down again; null: never.",
    )


class TopicSection(_Section):
    """One topic: its single writer, its key, its partitions, and Kafka's settings by Kafka's names."""

    owner: Name = Field(description="The one service that writes this topic.")
    key: str = Field(description="The payload column that the partition is chosen by.")
    partitions: int = Field(1, ge=1, le=PARTITIONS_MAX, description="Fixed at creation.")
    compatibility: Literal["BACKWARD"] = Field(
        "BACKWARD", description="Of a topic's columns from one version to the next: they may be new, or wider."
    )
    cleanup_policy: Literal["delete"] = Field("delete", alias="cleanup.policy", description="Nothing is compacted yet.")
    retention_ms: int = Field(
        TopicSettings.retention_ms, alias="retention.ms", ge=-1, le=MILLISECONDS_MAX, description="-1: for ever."
    )
    retention_bytes: int = Field(
        TopicSettings.retention_bytes, alias="retention.bytes", ge=-1, le=BYTES_MAX, description="-1: all of them."
    )
    segment_bytes: int = Field(TopicSettings.segment_bytes, alias="segment.bytes", ge=1, le=SEGMENT_BYTES_MAX)
    segment_ms: int = Field(TopicSettings.segment_ms, alias="segment.ms", ge=1, le=MILLISECONDS_MAX)
    max_message_bytes: int = Field(
        TopicSettings.max_message_bytes, alias="max.message.bytes", ge=1, le=MESSAGE_BYTES_MAX,
        description="Of one append, which is one Arrow batch.",
    )  # fmt: skip

    @field_validator("compatibility", mode="before")
    @classmethod
    def _can_be_compared(cls, mode: object) -> object:
        if mode in get_args(Compatibility) and mode != "BACKWARD":
            problem = "does nothing: columns may grow as BACKWARD has it, and change in no other way yet"
            raise no_effect(problem, "Leave the key out, or write compatibility: BACKWARD")
        return mode

    @field_validator("cleanup_policy", mode="before")
    @classmethod
    def _is_carried_out(cls, policy: object) -> object:
        if policy == COMPACT:
            problem = "does nothing: there is no compaction yet, and the topic would only be kept for ever"
            raise no_effect(problem, "Write cleanup.policy: delete, with retention.ms: -1 to keep it for ever")
        return policy

    def settings(self) -> TopicSettings:
        """Kafka's settings of this topic."""
        return TopicSettings(
            cleanup_policy=self.cleanup_policy,
            retention_ms=self.retention_ms,
            retention_bytes=self.retention_bytes,
            segment_bytes=self.segment_bytes,
            segment_ms=self.segment_ms,
            max_message_bytes=self.max_message_bytes,
        )


class ServiceSection(_Section):
    """One service; keys other than these are its own options, which the application defines."""

    listens: list[Name] = Field(default_factory=list, description="Topics whose facts are its inputs.")
    views: dict[Name, Annotated[list[Name], Field(min_length=1)]] = Field(
        default_factory=dict, description="Local tables, each folded from the topics named."
    )
    asks: list[Name] = Field(default_factory=list, description="Services it sends commands or queries to.")
    policies: dict[str, AskPolicy] = Field(
        default_factory=dict, description="How it asks, by the message that it sends, and default for all others."
    )
    instances: int = Field(
        1, ge=1, le=INSTANCES_MAX, description="Instances; each hosts partitions of the service's own topic."
    )

    @classmethod
    def split(cls, section: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A service's keys as they stand in the file: the framework's, and the application's own."""
        own = {key: value for key, value in section.items() if key not in cls.model_fields}
        return {key: value for key, value in section.items() if key in cls.model_fields}, own


class MeshFile(_Section):
    """A mesh file, service options apart."""

    version: Literal["eventmesh.mesh/1"] = Field(alias="schema", description="The version of this format.")
    name: Name = Field(description="The mesh's name; a running mesh is found by it.")
    application: PackageName = Field(description="The package with the facts, services and wirings.")
    wiring: str = Field(description="One of the application's wirings.")
    log: LogSection = LogSection()
    topics: dict[Name, TopicSection] = Field(min_length=1)
    services: dict[Name, ServiceSection] = Field(min_length=1)
    contexts: dict[Name, list[Name]] = Field(
        default_factory=dict, description="Bounded contexts: commands and queries stay inside one."
    )


@dataclass(frozen=True)
class Mesh:
    """A checked description. ``options`` are each service's own, as the application's models, by service name.

    ``earlier`` are the columns that topics had before, oldest first, in the log that it goes on with (:meth:`on_log`).
    ``sources`` are the files of its application, as they were checked; None where nobody can tell.
    """

    description: MeshFile
    schemas: Mapping[str, pa.Schema]
    options: Mapping[str, BaseModel]
    earlier: Mapping[str, tuple[pa.Schema, ...]] = field(default_factory=dict)
    sources: Sources | None = None

    @property
    def name(self) -> str:
        """The mesh's name."""
        return self.description.name

    @property
    def wiring(self) -> str:
        """The name of the wiring, a key of the application's ``WIRINGS``."""
        return self.description.wiring

    @property
    def log(self) -> LogSection:
        """Brokers and durability."""
        return self.description.log

    @property
    def services(self) -> Mapping[str, ServiceSection]:
        """The services that run from the start, by name, in the order of the file."""
        return self.description.services

    @property
    def contexts(self) -> Mapping[str, list[str]]:
        """The services of each bounded context; empty where the mesh is one context."""
        return self.description.contexts

    @property
    def application(self) -> Application:
        """The application's package, with all that a runtime needs.

        Raises :class:`ConfigurationError` where it lacks a part.
        """
        return cast(Application, load_package(self.description.application, parts=TO_RUN))

    @property
    def code(self) -> str:
        """Which application it is, by its files; empty where nobody can tell."""
        return "" if self.sources is None else self.sources.fingerprint

    @property
    def words(self) -> Words:
        """The application's words for what its callers ask for."""
        words: Words = optional(self.application, "WORDS")
        return words

    @property
    def asks(self) -> bool:
        """Whether services ask each other in its wiring: a rule of one of them sends a command or a query."""
        triggers = self.application.WIRINGS[self.wiring]
        return any(named(triggers[name].sends, self.options[name]) for name in self.services if name in triggers)

    def topics(self) -> dict[str, Topic]:
        """Every topic by name, with the application's columns."""
        return {
            name: Topic(
                name=name,
                owner=section.owner,
                key=section.key,
                partitions=section.partitions,
                schema=self.schemas[name],
                settings=section.settings(),
                compatibility=section.compatibility,
                earlier=self.earlier.get(name, ()),
            )
            for name, section in self.description.topics.items()
        }

    def on_log(self, stored: Mapping[str, Topic]) -> Mesh:
        """The mesh as it goes on with a log that holds these topics: its columns may be their next version.

        :class:`~eventmesh.errors.DataDirectoryError` where it cannot go on with them, with all that is in the way.
        """
        topics = gone_on_with(stored, self.topics())
        return replace(self, earlier={name: topic.earlier for name, topic in topics.items()})

    def topic_of(self, service: str) -> str:
        """The one topic that ``service`` owns. Raises :class:`NotFound` for a service that owns none."""
        owned = {section.owner: name for name, section in self.description.topics.items()}
        if service not in owned:
            raise NotFound(f"no service {service!r} in mesh {self.name!r}. {suggestion(service, owned)}")
        return owned[service]

    def partitions_of(self, service: str) -> int:
        """How many partitions ``service``'s own topic has, hence how many parts its state has."""
        return self.description.topics[self.topic_of(service)].partitions

    def instance_of(self, service: str, partition: int) -> int:
        """The instance of ``service``, counted from 0, that hosts this partition of its topic."""
        if not 0 <= partition < self.partitions_of(service):
            raise NotFound(f"{service} has partitions 0 to {self.partitions_of(service) - 1}, not {partition}")
        section = self.services.get(service)
        return partition % section.instances if section else 0

    @property
    def processes(self) -> int:
        """How many processes it runs in: each instance of each service, a broker and a load generator."""
        return sum(section.instances for section in self.services.values()) + 2

    @property
    def keeps_snapshots(self) -> bool:
        """Whether snapshots are taken; a log in memory has nowhere to keep them."""
        return self.log.snapshot_rows is not None and self.log.durability != "memory"

    def positions(self, topics: Iterable[str]) -> list[str]:
        """All partitions of these topics as ``topic/partition``, in the order in which the topics are listed."""
        sections = self.description.topics
        return [position_name(topic, number) for topic in topics for number in range(sections[topic].partitions)]

    def inputs_of(self, service: str, partition: int) -> list[str]:
        """The partitions that this one of ``service`` listens to: its own number where keys and counts agree, else all.

        As ``topic/partition``, in the order in which the topics are listed. Last comes its own, where the wiring has a
        rule for its own facts.
        """
        topics, names = self.description.topics, list[str]()
        own_topic = self.topic_of(service)
        own = topics[own_topic]
        for name in self.services[service].listens:
            together = (topics[name].key, topics[name].partitions) == (own.key, own.partitions)
            names += [position_name(name, partition)] if together else self.positions([name])
        if self._heeds_itself(service, own_topic) and own_topic not in self.services[service].listens:
            names.append(position_name(own_topic, partition))
        return names

    def _heeds_itself(self, service: str, topic: str) -> bool:
        triggers = self.application.WIRINGS[self.wiring]
        kinds = self.application.DECLARED.kinds().get(topic, ())
        if service not in triggers or not any(kind in triggers[service].rules for kind in kinds):
            return False
        return self.application.SERVICES[service].hears_itself(self.options[service])

    def plug_ins(self) -> list[str]:
        """Owners of a declared topic that do not run from the start, sorted."""
        return sorted({section.owner for section in self.description.topics.values()} - set(self.services))

    def context_of(self, service: str) -> str | None:
        """The bounded context of ``service``, or None where it is in none."""
        return next((context for context, members in self.contexts.items() if service in members), None)

    def may_ask(self, asker: str, answerer: str) -> bool:
        """Whether a command or query may go from one to the other: the boundary of contexts allows it."""
        return not self.contexts or (
            self.context_of(asker) is not None and self.context_of(asker) == self.context_of(answerer)
        )

    def asked_by(self, service: str) -> frozenset[str]:
        """Whom ``service`` may send commands and queries: those that its ``asks`` names, and itself."""
        section = self.services.get(service)
        return frozenset({service, *(section.asks if section is not None else ())})

    def policy(self, asker: str, message: MessageType) -> Policy:
        """How ``asker`` asks this message; nothing is said of it where the service runs from no file."""
        section = self.services.get(asker)
        return Policy() if section is None else policy_of(section.policies, message)

    def folding(self, service: str, partition: int) -> Service:
        """The service as one that folds its facts and decides nothing: no rule triggers it, and it has no view."""
        place = Place(service, partition, self.topics(), self.options[service], 0, self.application.DECLARED)
        return self.application.SERVICES[service](place, Trigger(), {})

    def view(self, service: str, name: str) -> View:
        """A view of ``service`` before any fact."""
        shape, topics = self.application.VIEWS[name], self.services[service].views[name]
        sections = {topic: self.description.topics[topic] for topic in topics}
        # A key that has the topic's own in it lies in the one partition that this one is hashed to.
        spread = [topic for topic, each in sections.items() if each.partitions > 1 and each.key not in shape.whole_key]
        return View(name, shape, topics, spread)

    def resolved(self) -> dict[str, Any]:
        """The whole description with every default filled in, as a mesh file would say it: :func:`parse` reads it."""
        document: dict[str, Any] = self.description.model_dump(mode="json", by_alias=True)
        for name, options in self.options.items():
            document["services"][name] |= options.model_dump(mode="json", by_alias=True)
        return document

    def diagram(self) -> str:
        """The mesh as a Mermaid flowchart: owner ==> topic --> listener, topic -.view.-> holder, asker --> asked."""
        return "\n".join(["flowchart LR", *self._nodes(), *self._edges()]) + "\n"

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema of a mesh file, for editors. Options of services are left open: applications define them."""
        schema = MeshFile.model_json_schema(by_alias=True)
        schema["$defs"]["ServiceSection"]["additionalProperties"] = True
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    def _nodes(self) -> Iterator[str]:
        grouped = {service for members in self.contexts.values() for service in members}
        for context, members in self.contexts.items():
            yield f'    subgraph context_{_identifier(context)}["{context}"]'
            yield from (f"    {self._service_node(service)}" for service in members)
            yield "    end"
        for service in [*self.services, *self.plug_ins()]:
            if service not in grouped:
                yield self._service_node(service)
        for name, section in self.description.topics.items():
            yield f'    topic_{_identifier(name)}[("{name} × {section.partitions}")]'

    def _service_node(self, service: str) -> str:
        section = self.services.get(service)
        label = f"{service} (plug-in)" if section is None else service
        if section is not None and section.instances > 1:
            label += f" × {section.instances}"
        return f'    service_{_identifier(service)}["{label}"]'

    def _edges(self) -> Iterator[str]:
        for name, topic in self.description.topics.items():
            yield f"    service_{_identifier(topic.owner)} ==> topic_{_identifier(name)}"
        for name, service in self.services.items():
            here = f"service_{_identifier(name)}"
            yield from (f"    topic_{_identifier(topic)} --> {here}" for topic in service.listens)
            for view, topics in service.views.items():
                yield from (f'    topic_{_identifier(topic)} -. "{view}" .-> {here}' for topic in topics)
            yield from (f'    {here} -- "asks" --> service_{_identifier(asked)}' for asked in service.asks)


def load(path: Path | str) -> Mesh:
    """The mesh that the YAML file at ``path`` describes. Raises :class:`ConfigurationError`."""
    return parse(configuration.read(path), file=str(path))


def load_stored(path: Path | str) -> Mesh:
    """The mesh whose description was stored with its data. Raises :class:`ConfigurationError`.

    A setting that is refused in a new file, since it has no effect, is passed over with a
    :class:`~eventmesh.errors.StoredSetting`.
    """
    return parse(configuration.read(path), file=str(path), stored=True)


def parse(document: Mapping[str, Any], *, file: str = "", package: Package | None = None, stored: bool = False) -> Mesh:
    """The mesh that ``document`` describes; ``file`` is only named in errors.

    The application's package is imported by the name that the document gives, unless one is passed in. ``stored``: see
    :func:`load_stored`. Raises :class:`ConfigurationError`.
    """
    framework, options = _split(_kept(document, file) if stored else document)
    description = configuration.validate(MeshFile, framework, file=file, stored=stored)
    sources = None
    if package is None:
        package = cast(Package, load_package(description.application, file=file))
        sources = sources_of(description.application)
    _Check(file, description, package).all()
    models = {}
    for name, own in options.items():
        model, path = package.OPTIONS[name], f"services.{name}"
        models[name] = configuration.validate(
            model, own, file=file, path=path, beside=ServiceSection.model_fields, stored=stored
        )
        _check_wirings(models[name], description.wiring, file, path, stored)
    parts = {
        name: Part(section.listens, section.views, section.asks, models[name])
        for name, section in description.services.items()
    }
    owners = {name: topic.owner for name, topic in description.topics.items()}
    Needs.of(package, description.wiring, owners, parts, file).check(stored=stored)
    _check_policies(description, package, models, file)
    schemas = {name: package.DECLARED.schemas[name] for name in description.topics}
    mesh = Mesh(description, schemas, models, sources=sources)
    if mesh.keeps_snapshots:
        _check_states(mesh, package, file)
    return mesh


def _check_policies(description: MeshFile, package: Package, options: Mapping[str, BaseModel], file: str) -> None:
    """A policy of what is never asked, or that contradicts itself, would do nothing without a word."""
    messages: Mapping[str, MessageType] = package.DECLARED.messages
    triggers = package.WIRINGS[description.wiring]
    for name, section in description.services.items():
        trigger = triggers.get(name, Trigger())
        sends = {each: messages[each] for each in named(trigger.sends, options[name])}
        until_answered = named(trigger.until_answered, options[name])
        PolicyCheck(name, section.policies, description.wiring, sends, until_answered, messages, file).all()


def _check_states(mesh: Mesh, package: Package, file: str) -> None:
    """A state that no snapshot gives back would be found when a service that died does not come back."""
    services = getattr(package, "SERVICES", {})
    for name in [each for each in mesh.services if each in services]:
        try:
            state_type(services[name])
        except NoSnapshot as error:
            hint = "Mend it, or write under log: snapshot_rows: null, and each restart folds all of its facts"
            raise ConfigurationError(str(error), file=file, path=f"services.{name}", hint=hint) from error


def _split(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The document without the services' own options, and those options by service."""
    framework, options = dict(document), dict[str, dict[str, Any]]()
    if isinstance(document.get("services"), Mapping):
        framework["services"] = dict(document["services"])
        for name, section in document["services"].items():
            if isinstance(section, Mapping):
                framework["services"][name], options[name] = ServiceSection.split(section)
    return framework, options


def _kept(document: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """A stored document, in which a topic that was to be compacted is kept for ever, as it has been all along."""
    topics = document.get("topics")
    if not isinstance(topics, Mapping):
        return document
    kept = dict(topics)
    for name, section in topics.items():
        if isinstance(section, Mapping) and section.get(POLICY) == COMPACT:
            kept[name] = {**section, POLICY: "delete", "retention.ms": -1, "retention.bytes": -1}
            path = configuration.dotted(("topics", str(name), POLICY))
            instead = "All of it is kept, as before: retention.ms and retention.bytes are -1"
            configuration.passed_over(
                "does nothing: there is no compaction yet, found text 'compact'", file=file, path=path, instead=instead
            )
    return {**document, "topics": kept}


def _check_wirings(options: BaseModel, wiring: str, file: str, path: str, stored: bool) -> None:
    """An option may say in its schema in which ``wirings`` it is read at all; elsewhere nothing may be set by it."""
    for name in options.model_fields_set:
        field, value = type(options).model_fields[name], getattr(options, name)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, Mapping) else {}
        wirings = extra.get("wirings", [wiring])
        if value == field.default or not isinstance(wirings, list) or wiring in wirings:
            continue
        problem = f"does nothing in wiring {wiring!r}, found {configuration.describe(value)}"
        if stored:
            configuration.passed_over(problem, file=file, path=f"{path}.{name}")
        else:
            hint = f"Leave it out, or choose a wiring that reads it: {', '.join(map(str, wirings))}"
            raise ConfigurationError(problem, file=file, path=f"{path}.{name}", hint=hint)


def _identifier(name: str) -> str:
    """``name`` as part of a Mermaid node's id, which must not hold dots or hyphens; injective."""
    return name.replace("_", "__").replace("-", "_m_").replace(".", "_d_")


@dataclass(frozen=True)
class _Check:
    """What the models cannot say alone: that the parts of a mesh fit each other and the application."""

    file: str
    mesh: MeshFile
    package: Package

    def all(self) -> None:
        """Raises :class:`ConfigurationError` for the first mistake."""
        self._known("wiring", "wiring", self.mesh.wiring, self.package.WIRINGS)
        self._declared()
        self._one_broker()
        for name, topic in self.mesh.topics.items():
            self._topic(name, topic)
        self._owners()
        for name, service in self.mesh.services.items():
            self._service(name, service)
        self._contexts()
        for name, service in self.mesh.services.items():
            self._asks(name, service)

    def _one_broker(self) -> None:
        # Said here rather than as a bound of the model: the reason is worth more than "at most 1".
        if self.mesh.log.brokers > 1:
            problem = f"found {self.mesh.log.brokers}, but one broker is what there is: all partitions live in it"
            raise self._error("log.brokers", problem, "Write brokers: 1, or leave the key out")

    def _declared(self) -> None:
        """Whom commands and queries are for, and whose the triggers are: services of the application."""
        for name, message in self.package.DECLARED.messages.items():
            self._known("application", f"service of {name}", message.service, self.package.OPTIONS)
        for name in self.package.WIRINGS[self.mesh.wiring]:
            self._known("wiring", f"service in wiring {self.mesh.wiring!r}", name, self.package.OPTIONS)

    def _topic(self, name: str, topic: TopicSection) -> None:
        self._known(f"topics.{name}", "topic", name, self.package.DECLARED.schemas)
        columns = [column for column in self.package.DECLARED.schemas[name].names if column not in _RESERVED_COLUMNS]
        self._known(f"topics.{name}.key", "column", topic.key, columns)
        self._is_text(f"topics.{name}.key", topic.key, name)
        for fact in self.package.DECLARED.topics[name]:
            if not has_key(fact, topic.key):
                problem = f"the key {topic.key!r} of {name} is no column of {fact.__name__}, or may be None there"
                hint = f"Each fact of a topic has its key: write {topic.key}: str in {fact.__name__}, or choose another"
                raise self._error(f"topics.{name}.key", problem, hint)

    def _owners(self) -> None:
        """One topic per service. An owner may be absent if it can be plugged in and nothing waits for it."""
        owned: dict[str, str] = {}
        for name, topic in self.mesh.topics.items():
            if topic.owner in owned:
                problem = f"{topic.owner!r} owns {owned[topic.owner]!r} already: a service owns exactly one topic"
                raise self._error(f"topics.{name}.owner", problem, "Give this topic a service of its own")
            owned[topic.owner] = name
            if topic.owner not in self.mesh.services:
                self._plug_in(name, topic)

    def _plug_in(self, name: str, topic: TopicSection) -> None:
        path = f"topics.{name}.owner"
        self._known(path, "service", topic.owner, {*self.mesh.services, *self.package.OPTIONS})
        waiting = [service for service, section in self.mesh.services.items() if name in section.listens]
        if waiting:
            problem = f"no service {topic.owner!r} is described, but {', '.join(waiting)} listens to its topic"
            raise self._error(
                path, problem, f"Add {topic.owner!r} to services. Write under services: {topic.owner}: {{}}"
            )

    def _service(self, name: str, service: ServiceSection) -> None:
        path = f"services.{name}"
        self._known(path, "service", name, self.package.OPTIONS)
        partitions = {topic.owner: topic.partitions for topic in self.mesh.topics.values()}
        if name not in partitions:
            problem = f"{name!r} owns no topic: a service owns exactly one, which its state is folded from"
            raise self._error(path, problem, self._topic_for(name))
        if service.instances > partitions[name]:
            problem = f"{service.instances} instances, but its topic has {partitions[name]} partitions"
            raise self._error(f"{path}.instances", problem, f"Allowed: 1 to {partitions[name]}")
        self._all_known(f"{path}.listens", "topic", service.listens, self.mesh.topics)
        for view, topics in service.views.items():
            self._known(f"{path}.views.{view}", "view", view, getattr(self.package, "VIEWS", service.views))
            self._all_known(f"{path}.views.{view}", "topic", topics, self.mesh.topics)
            self._view(f"{path}.views.{view}", view, topics)

    def _view(self, path: str, view: str, topics: Sequence[str]) -> None:
        """A view of another shape would stay empty, or full of nulls, without a word."""
        shapes: Mapping[str, ViewShape] = getattr(self.package, "VIEWS", {})
        if view not in shapes:
            return
        schemas = {topic: self.package.DECLARED.schemas[topic] for topic in topics}
        try:
            ShapeCheck(view, shapes[view], schemas, self.package.DECLARED.kinds()).all()
        except Misshapen as mistake:
            raise self._error(path, mistake.problem, mistake.hint) from mistake

    def _is_text(self, path: str, column: str, topic: str) -> None:
        """Keys of topics are texts: partitions are chosen by their bytes."""
        kind = self.package.DECLARED.schemas[topic].field(column).type
        if not pa.types.is_string(kind):
            texts = [field.name for field in self.package.DECLARED.schemas[topic] if pa.types.is_string(field.type)]
            names = ", ".join(sorted(set(texts) - _RESERVED_COLUMNS)) or "none"
            problem = f"the column {column!r} of {topic} is of type {kind}, and a key is a text"
            raise self._error(path, problem, f"Give {topic} a column of type string. Those that it has: {names}")

    def _topic_for(self, service: str) -> str:
        lines = [topic_line(topic, service, schema) for topic, schema in self.package.DECLARED.schemas.items()]
        free = [
            line
            for line, topic in zip(lines, self.package.DECLARED.schemas, strict=True)
            if topic not in self.mesh.topics
        ]
        return f"Write under topics: {' or '.join(free)}" if free else f"Take {service!r} out of services"

    def _contexts(self) -> None:
        owners = {topic.owner for topic in self.mesh.topics.values()}
        context_of: dict[str, str] = {}
        for context, members in self.mesh.contexts.items():
            self._all_known(f"contexts.{context}", "service", members, owners)
            for member in members:
                if member in context_of:
                    problem = f"{member!r} is in context {context_of[member]!r} already"
                    raise self._error(f"contexts.{context}", problem, "A service is in one context")
                context_of[member] = context

    def _asks(self, name: str, service: ServiceSection) -> None:
        path = f"services.{name}.asks"
        self._all_known(path, "service", service.asks, set(self.mesh.services) - {name})
        drafted = Mesh(self.mesh, {}, {})  # only its contexts are asked
        for asked in service.asks:
            if not drafted.may_ask(name, asked):
                problem = f"{name!r} ({drafted.context_of(name)}) asks {asked!r} ({drafted.context_of(asked)})"
                hint = "Contexts talk by events only: listen to its topic, or put both into one context"
                raise self._error(path, problem, hint)

    def _all_known(self, path: str, kind: str, names: list[str], allowed: Iterable[str]) -> None:
        for index, name in enumerate(names):
            self._known(f"{path}[{index}]", kind, name, allowed)
            if name in names[:index]:
                raise self._error(f"{path}[{index}]", f"{name!r} is named twice", "Name it once")

    def _known(self, path: str, kind: str, name: str, allowed: Iterable[str]) -> None:
        if name not in allowed:
            raise self._error(path, f"unknown {kind} {name!r}", suggestion(name, allowed))

    def _error(self, path: str, problem: str, hint: str) -> ConfigurationError:
        return ConfigurationError(problem, file=self.file, path=path, hint=hint)
