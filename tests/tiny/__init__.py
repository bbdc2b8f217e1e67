"""A second application: a library that lends books. Shows that the framework knows nothing of the shop.

Two services: ``desk`` takes loans and returns, ``shelf`` has the copies and lends them. Wired ``events`` the shelf
reacts to what the desk has written down; wired ``asking`` the desk commands the shelf and waits.
"""

from tests.tiny.lending import FACTS, MESSAGES, OPTIONS, SCHEMAS, VIEWS, Desk, Shelf
from tests.tiny.wirings import WIRINGS
from tests.tiny.workload import workload

SERVICES = {service.name: service for service in (Desk, Shelf)}
CHECKS = {}  # type: ignore[var-annotated]

__all__ = ["CHECKS", "FACTS", "MESSAGES", "OPTIONS", "SCHEMAS", "SERVICES", "VIEWS", "WIRINGS", "workload"]
