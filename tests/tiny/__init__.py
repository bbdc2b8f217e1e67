"""A second application: a library that lends books. Shows that the framework knows nothing of the shop.

Two services: ``desk`` takes loans and returns, ``shelf`` has the copies and lends them. Wired ``events`` the shelf
reacts to what the desk has written down; wired ``asking`` the desk commands the shelf and waits.
"""

from eventmesh.application import Words
from eventmesh.declared import Declared
from tests.tiny import lending
from tests.tiny.lending import OPTIONS, VIEWS, Desk, Shelf
from tests.tiny.wirings import WIRINGS
from tests.tiny.workload import WORKLOAD, workload

DECLARED = Declared(lending)
SERVICES = {service.name: service for service in (Desk, Shelf)}
WORDS = Words("loan", "loans", "a loan", joins={"view": "a copy of the catalogue", "none": "no look at the shelf"})
STORY = "loan_id"

__all__ = [
    "DECLARED", "OPTIONS", "SERVICES", "STORY", "VIEWS", "WIRINGS", "WORDS", "WORKLOAD", "workload",
]  # fmt: skip
