"""A third application, whose rules make the mistake that a command names.

Two services: ``waiter`` takes what callers ask for, ``cook`` is asked by it. Wired ``events`` the waiter answers at
once; wired ``asking`` it waits for the cook.
"""

from tests.mistakes.kitchen import FACTS, MESSAGES, OPTIONS, SCHEMAS, VIEWS, Cook, Waiter
from tests.mistakes.wirings import WIRINGS

SERVICES = {service.name: service for service in (Waiter, Cook)}

__all__ = ["FACTS", "MESSAGES", "OPTIONS", "SCHEMAS", "SERVICES", "VIEWS", "WIRINGS"]
