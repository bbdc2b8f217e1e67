"""A broker in a process of its own: says where it is served, then does the fault that it reads from its input."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import TypeAdapter

from eventmesh.runtime.faults import Fault
from eventmesh.runtime.process.broker_member import BrokerMember
from tests.process.slow_reader import say
from tests.unit.log_story import ORDERS

FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)

if __name__ == "__main__":
    broker = BrokerMember({ORDERS.name: ORDERS}, Path(sys.argv[1]), "os", "test")
    say(f"served at {broker.address()}")
    for line in sys.stdin:
        broker.strike(FAULT.validate_json(line))
        say("struck")
