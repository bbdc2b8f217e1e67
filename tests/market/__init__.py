"""A fourth application: its views are of every kind, over topics of several partitions.

Three services: ``till`` sells and voids sales, ``desk`` takes sales back, and ``board`` says what it sees of both.
"""

from tests.market.stalls import DECLARED, OPTIONS, SERVICES, VIEWS, WIRINGS
from tests.market.workload import sales

__all__ = ["DECLARED", "OPTIONS", "SERVICES", "VIEWS", "WIRINGS", "sales"]
