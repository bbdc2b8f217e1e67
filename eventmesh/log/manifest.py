"""The manifest of a data directory: what it is, whose it is, and which topics it holds.

Written atomically, after the partitions that it names exist: so a topic that the manifest names and whose
files are gone was lost, and is never silently created anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from eventmesh.errors import DataDirectoryError
from eventmesh.log.batch import schema_message
from eventmesh.log.evolution import NONE, Change, changes
from eventmesh.log.partition import Durability
from eventmesh.log.storage import Storage
from eventmesh.log.topic import Topic, TopicSettings

MANIFEST = "manifest.json"
#: The format that is written, and those that are read: in format 2 each topic had one version of its columns.
FORMAT_VERSION = 3
FORMATS_READ = frozenset({2, FORMAT_VERSION})
#: By these modes a reader of the new columns reads what was written with the old ones; no other is carried out yet.
READS_OLD = frozenset({"BACKWARD", "BACKWARD_TRANSITIVE"})


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
        if fields["format_version"] not in FORMATS_READ:
            raise DataDirectoryError(
                f"the data directory has format version {fields['format_version']}, this program reads "
                f"{formats_read()}. Open it with the program that wrote it"
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


def formats_read() -> str:
    """In words."""
    return " and ".join(map(str, sorted(FORMATS_READ)))


def _topic_to_json(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "owner": topic.owner,
        "key": topic.key,
        "partitions": topic.partitions,
        "schema": _packed(topic.schema),
        "earlier": [_packed(each) for each in topic.earlier],
        "settings": asdict(topic.settings),
        "compatibility": topic.compatibility,
    }


def _topic_from_json(fields: dict[str, Any]) -> Topic:
    columns = {
        "schema": _unpacked(fields["schema"]),
        "earlier": tuple(_unpacked(each) for each in fields.get("earlier", [])),
    }
    return Topic(**{**fields, **columns, "settings": TopicSettings(**fields["settings"])})


def _packed(schema: pa.Schema) -> str:
    return base64.b64encode(schema_message(schema)).decode()


def _unpacked(packed: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


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


# --- topics that grow -------------------------------------------------------------------------------


def gone_on_with(known: Mapping[str, Topic], asked: Mapping[str, Topic]) -> dict[str, Topic]:
    """The topics that are asked for, as they are once the log that holds the ``known`` ones was opened with them.

    Settings and compatibility may change from one opening to the next, and columns may grow: then they are the next
    version (rule 18). ``DataDirectoryError`` with everything else that differs, field by field.
    """
    refused: list[str] = []
    topics = {}
    for name, topic in asked.items():
        stored = known.get(name)
        if stored is None:
            topics[name] = topic
            continue
        refused += [f"{name}: {each}" for each in _differing(stored, topic)]
        same = stored.schema.equals(topic.schema)
        earlier = stored.earlier if same else (*stored.earlier, stored.schema)
        topics[name] = replace(topic, schema=stored.schema if same else topic.schema, earlier=earlier)
    if refused:
        problem = "the topics that are asked for do not go on with those that are stored:"
        said = f" {refused[0]}" if len(refused) == 1 else "".join(f"\n  {each}" for each in refused)
        raise DataDirectoryError(problem + said)
    return topics


def growth(known: Mapping[str, Topic], grown: Mapping[str, Topic]) -> list[str]:
    """What an opening would change for good, a sentence for each topic that gets another version of its columns."""
    return [
        f"{name}: version {topic.version} of its columns: {_said(changes(stored.schema, topic.schema))}"
        for name, topic in grown.items()
        if (stored := known.get(name)) is not None and topic.version > stored.version
    ]


def _said(found: Sequence[Change]) -> str:
    return (
        ", ".join(
            f"{each.path} ({each.found}{'' if each.stored == NONE else f', was {each.stored}'})" for each in found
        )
        or "in another order"
    )


_MEND = {
    "owner": "A topic keeps its writer: name that one, or take another topic",
    "key": "Its partitions were chosen by that: keep it, or take another topic",
    "partitions": "They are fixed at creation: keep them, or take another data directory",
}


def _differing(stored: Topic, asked: Topic) -> Iterator[str]:
    for what, hint in _MEND.items():
        before, found = getattr(stored, what), getattr(asked, what)
        if before != found:
            yield f"{what}: stored {before!r}, found {found!r}. {hint}"
    if stored.schema.equals(asked.schema):
        return
    back = next((number for number, each in enumerate(stored.earlier, 1) if each.equals(asked.schema)), None)
    if back is not None:
        yield (
            f"version {back} of its columns is asked for, and version {stored.version} is stored. Nothing goes back to "
            f"earlier columns: start the application that has version {stored.version}, or restore a backup from before"
        )
        return
    found_changes = changes(stored.schema, asked.schema)
    refused = [str(each) for each in found_changes if each.advice]
    if not refused and asked.compatibility not in READS_OLD:
        refused = [f"{each}. By {asked.compatibility} nothing changes yet: write BACKWARD" for each in found_changes]
    yield from refused
