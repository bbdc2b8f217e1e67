"""A third application, whose rules make the mistake that a command names.

Two services: ``waiter`` takes what callers ask for, ``cook`` is asked by it. Wired ``events`` the waiter answers at
once; wired ``asking`` it waits for the cook.
"""

from tests.mistakes.kitchen import DECLARED, OPTIONS, VIEWS, Kitchen, Waiter
from tests.mistakes.wirings import WIRINGS

SERVICES = {service.name: service for service in (Waiter, Kitchen)}

__all__ = ["DECLARED", "OPTIONS", "SERVICES", "VIEWS", "WIRINGS"]
