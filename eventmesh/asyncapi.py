"""A mesh as an AsyncAPI 3 document: its topics, who writes and who listens, and what may be asked of each service.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. A topic is a channel that its owner sends to and that
listeners and views receive from. What a service may be asked comes by a channel of its own, and is answered on it.
Payloads are JSON Schema, out of the declared classes; headers are the envelope, which is CloudEvents'.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import json

from eventmesh.declared import Declared, MessageType
from eventmesh.mesh import Mesh
from eventmesh.messages import ENVELOPE

VERSION = "3.0.0"
#: What a batch of messages is on the wire and in the log.
CONTENT_TYPE = "application/vnd.apache.arrow.stream"
_TYPES = {"string": {"type": "string"}, "int64": {"type": "integer"}}
_TIME = {"type": "integer", "description": "microseconds since 1970, UTC"}


def document(mesh: Mesh) -> dict[str, Any]:
    """The document of a mesh; it lists what its wiring uses."""
    declared, asked = mesh.application.DECLARED, _asked(mesh)
    kinds = [cls for topic in mesh.topics() for cls in declared.topics[topic]]
    messages = {cls.__name__: _message(cls) for cls in kinds}
    for message in asked:
        for cls in (message.asked, message.told):
            messages[cls.__name__] = _message(cls)
    classes = [*kinds, *(cls for message in asked for cls in (message.asked, message.told))]
    return {
        "asyncapi": VERSION,
        "info": {"title": mesh.name, "version": "1", "description": f"Wired {mesh.wiring!r}."},
        "defaultContentType": CONTENT_TYPE,
        "channels": {**_topics(mesh, declared), **_services(mesh, asked)},
        "operations": {**_written(mesh), **_read(mesh), **_answered(asked)},
        "components": {"messages": messages, "schemas": schemas(classes)},
    }


def schemas(classes: Iterable[type]) -> dict[str, Any]:
    """The JSON Schema of each class by its name, and of what they consist of."""
    _, components = json.schema_components(dict.fromkeys(classes), ref_template="#/components/schemas/{name}")
    return dict(components)


def _asked(mesh: Mesh) -> list[MessageType]:
    """The commands that its wiring has rules for, and the queries that its services answer."""
    application = mesh.application
    triggers = application.WIRINGS[mesh.wiring]
    found = []
    for name, message in application.DECLARED.messages.items():
        service = message.service
        if service not in mesh.services:
            continue
        rules = triggers[service].rules if service in triggers else {}
        if message.kind == "query" or name in rules:
            found.append(message)
    return found


def _message(cls: type) -> dict[str, Any]:
    headers = {
        field.name: _TIME if field.name == "time" else _TYPES[str(field.type)] for field in ENVELOPE
    }  # fmt: skip
    needed = [field.name for field in ENVELOPE if not field.nullable]
    return {
        "name": cls.__name__,
        "summary": inspect.getdoc(cls) or cls.__name__,
        "headers": {"type": "object", "properties": headers, "required": needed},
        "payload": {"$ref": f"#/components/schemas/{cls.__name__}"},
    }


def _refs(classes: Iterable[type]) -> dict[str, Any]:
    return {cls.__name__: {"$ref": f"#/components/messages/{cls.__name__}"} for cls in classes}


def _topics(mesh: Mesh, declared: Declared) -> dict[str, Any]:
    return {
        name: {
            "address": name,
            "description": f"Written by {topic.owner} alone; {topic.partitions} partitions, chosen by {topic.key}.",
            "messages": _refs(declared.topics[name]),
        }
        for name, topic in mesh.topics().items()
    }


def _services(mesh: Mesh, asked: Iterable[MessageType]) -> dict[str, Any]:
    by_service: dict[str, list[MessageType]] = {}
    for message in asked:
        by_service.setdefault(message.service, []).append(message)
    return {
        f"ask.{service}": {
            "address": service,
            "description": f"What may be asked of {service}, and its answers.",
            "messages": _refs(cls for message in messages for cls in (message.asked, message.told)),
        }
        for service, messages in by_service.items()
    }


def _channel(name: str) -> Mapping[str, str]:
    # JSON Pointer has no quarrel with dots and hyphens, which are all that a name may have besides letters.
    return {"$ref": f"#/channels/{name}"}


def _written(mesh: Mesh) -> dict[str, Any]:
    return {
        f"{topic.owner}.writes.{name}": {"action": "send", "channel": _channel(name), "title": f"{topic.owner} writes"}
        for name, topic in mesh.topics().items()
    }


def _read(mesh: Mesh) -> dict[str, Any]:
    triggers = mesh.application.WIRINGS[mesh.wiring]
    kinds, found = mesh.application.DECLARED.kinds(), dict[str, Any]()
    for service, section in mesh.services.items():
        rules = triggers[service].rules if service in triggers else {}
        for topic in section.listens:
            taken = [{"$ref": f"#/channels/{topic}/messages/{kind}"} for kind in kinds[topic] if kind in rules]
            found[f"{service}.listens.{topic}"] = {
                "action": "receive", "channel": _channel(topic), "title": f"{service} listens", "messages": taken,
            }  # fmt: skip
        for view, topics in section.views.items():
            for topic in topics:
                found[f"{service}.views.{view}.{topic}"] = {
                    "action": "receive", "channel": _channel(topic), "title": f"{service} keeps the view {view}",
                }  # fmt: skip
    return found


def _answered(asked: Iterable[MessageType]) -> dict[str, Any]:
    found = {}
    for message in asked:
        channel = f"ask.{message.service}"
        found[f"{message.service}.answers.{message.name}"] = {
            "action": "receive",
            "channel": _channel(channel),
            "title": f"{message.service} answers the {message.kind} {message.name}",
            "messages": [{"$ref": f"#/channels/{channel}/messages/{message.name}"}],
            "reply": {
                "channel": _channel(channel),
                "messages": [{"$ref": f"#/channels/{channel}/messages/{message.told.__name__}"}],
            },
        }
    return found
