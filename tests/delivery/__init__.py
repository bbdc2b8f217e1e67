"""A fourth application: food is ordered, paid, cooked and brought. Its searches end after a time.

Four services: ``app`` takes what guests order, ``till`` charges them, ``couriers`` finds who brings it, ``kitchen``
cooks. Wired ``told`` each reacts to what the others have written down; wired ``asked`` the app commands the others and
waits. Where no courier comes within ten minutes, the guest has the money back.
"""

from eventmesh.application import Words
from eventmesh.declared import Declared
from tests.delivery import facts
from tests.delivery.checks import CHECKS
from tests.delivery.services import App, Couriers, Kitchen, Options, Till
from tests.delivery.wirings import WIRINGS
from tests.delivery.workload import VARIATION, WORKLOAD, workload

DECLARED = Declared(facts)
SERVICES = {service.name: service for service in (App, Till, Couriers, Kitchen)}
OPTIONS = dict.fromkeys(SERVICES, Options)
VIEWS: dict[str, object] = {}
WORDS = Words("meal", "meals", "a meal")
STORY = "order_id"

__all__ = [
    "CHECKS", "DECLARED", "OPTIONS", "SERVICES", "STORY", "VARIATION", "VIEWS", "WIRINGS", "WORDS", "WORKLOAD",
    "workload",
]  # fmt: skip
