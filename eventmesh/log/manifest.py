"""The manifest of a data directory: what it is, whose it is, and which topics it holds.

Written atomically, after the partitions that it names exist: so a topic that the manifest names and whose
files are gone was lost, and is never silently created anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from eventmesh.errors import DataDirectoryError
from eventmesh.log.batch import schema_message
from eventmesh.log.partition import Durability, first_difference
from eventmesh.log.storage import Storage
from eventmesh.log.topic import Topic, TopicSettings

MANIFEST = "manifest.json"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """``durability`` is the level of the newest opening for writing, ``boot_id`` the machine start it saw.

    ``node`` is the one node that may write here: data has one home (rule 7).
    """

    cluster_id: str
    node: str
    boot_id: str
    durability: Durability
    topics: Mapping[str, Topic]

    def to_bytes(self) -> bytes:
        """JSON; schemas as IPC schema messages in base64."""
        topics = [_topic_to_json(topic) for _, topic in sorted(self.topics.items())]
        fields = {
            "format_version": FORMAT_VERSION,
            "cluster_id": self.cluster_id,
            "node": self.node,
            "boot_id": self.boot_id,
            "durability": self.durability.value,
            "topics": topics,
        }
        return json.dumps(fields, indent=1).encode()


def read_manifest(storage: Storage) -> Manifest | None:
    """The manifest, or None in a directory without one; ``DataDirectoryError`` if it cannot be understood."""
    data = storage.read(MANIFEST, 0, storage.size(MANIFEST)).to_pybytes()
    if not data:
        return None
    try:
        fields = json.loads(data)
        if fields["format_version"] != FORMAT_VERSION:
            raise DataDirectoryError(
                f"the data directory has format version {fields['format_version']}, this program reads "
                f"{FORMAT_VERSION}. Open it with the program that wrote it"
            )
        topics = [_topic_from_json(entry) for entry in fields["topics"]]
        return Manifest(
            fields["cluster_id"],
            fields["node"],
            fields["boot_id"],
            Durability(fields["durability"]),
            {topic.name: topic for topic in topics},
        )
    except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise DataDirectoryError(f"{MANIFEST} is damaged: {error!r}. Restore it from a copy") from error


def _topic_to_json(topic: Topic) -> dict[str, Any]:
    schema = base64.b64encode(schema_message(topic.schema)).decode()
    return {
        "name": topic.name,
        "owner": topic.owner,
        "key": topic.key,
        "partitions": topic.partitions,
        "schema": schema,
        "settings": asdict(topic.settings),
        "compatibility": topic.compatibility,
    }


def _topic_from_json(fields: dict[str, Any]) -> Topic:
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["schema"])))
    return Topic(**{**fields, "schema": schema, "settings": TopicSettings(**fields["settings"])})


def check_home(manifest: Manifest, cluster_id: str, node: str) -> None:
    """``DataDirectoryError`` if the directory belongs to another cluster, or has another node for its home."""
    if manifest.cluster_id != cluster_id:
        raise DataDirectoryError(
            f"the data directory belongs to cluster {manifest.cluster_id}, not {cluster_id}. "
            f"Name another directory, or open it as cluster {manifest.cluster_id}"
        )
    if manifest.node != node:
        raise DataDirectoryError(
            f"the data directory of cluster {cluster_id} belongs to node {manifest.node}, this is node {node}. "
            f"Start its broker on node {manifest.node}, or name another directory: "
            f"a copy opened elsewhere would give the same offsets out twice"
        )


def check_same(known: Topic, asked: Topic) -> None:
    """``DataDirectoryError`` if the topic as asked for is not the one that the directory holds.

    Settings and compatibility may change from one opening to the next.
    """
    for what in ("owner", "key", "partitions"):
        if getattr(known, what) != getattr(asked, what):
            raise DataDirectoryError(
                f"topic {known.name}: {what} is {getattr(known, what)!r} in the data directory, "
                f"{getattr(asked, what)!r} was asked for. Use another directory, or the mesh that wrote this one"
            )
    if not known.schema.equals(asked.schema):
        raise DataDirectoryError(
            f"topic {known.name}: the schema differs: asked for, {first_difference(known.schema, asked.schema)}"
        )
