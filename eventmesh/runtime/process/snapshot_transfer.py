"""Snapshots on their way from the broker's disk to a service that starts: Flight's ``do_get``, from any node."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight

from eventmesh.errors import InputError, PeerLost, Unauthenticated
from eventmesh.log.storage import FileStorage
from eventmesh.runtime.snapshots import FOLDER, Snapshot, SnapshotStore
from eventmesh.runtime.wire.channel import GONE, Access
from eventmesh.runtime.wire.flight import call_options, connect, first_line

#: What a ticket for a snapshot begins with; its name follows. No topic's name begins with a dot.
TICKET = f"{FOLDER}/".encode()
SCHEMA = pa.schema([("snapshot", pa.large_binary())])
#: Seconds that the broker has for its answer: hundreds of megabytes take less than one.
PATIENCE_S = 20.0
_NAME = re.compile(r"(state|view)/[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


def load(directory: Path, ticket: bytes, cluster_id: str) -> Snapshot | None:
    """The snapshot that a ticket asks for, if it is whole and of this log; InputError for what is no ticket."""
    name = ticket[len(TICKET) :].decode(errors="replace")
    if not _NAME.fullmatch(name):
        raise InputError(f"ticket {ticket!r}: expected {FOLDER}/state/TOPIC/PARTITION or {FOLDER}/view/SERVICE/VIEW")
    storage = FileStorage(directory / FOLDER, read_only=True)
    try:
        return SnapshotStore(storage).load(name, cluster_id)
    finally:
        storage.close()


def answer(found: Snapshot | None) -> pa.RecordBatchReader:
    """One row, or none."""
    return pa.Table.from_pylist([] if found is None else [{"snapshot": found.to_bytes()}], SCHEMA).to_reader()


def fetch(address: str, name: str, access: Access) -> Snapshot | None:
    """Ask the broker at ``address``; PeerLost where it does not answer."""
    try:
        with connect(address) as client:
            table = client.do_get(flight.Ticket(TICKET + name.encode()), call_options(access, PATIENCE_S)).read_all()
    except flight.FlightUnauthenticatedError as error:
        raise Unauthenticated(f"{address} does not let us in: {first_line(error)}") from error
    except GONE as error:
        raise PeerLost(f"{address} did not give the snapshot {name}: {first_line(error)}") from error
    return Snapshot.from_bytes(table.column(0)[0].as_py()) if table.num_rows else None
