"""A workshop that repairs bicycles: an application of two services.

``counter`` takes bicycles in and says for which day a repair is promised; ``workbench`` knows how many hours of work
each day has. Wired ``told`` the workbench hears what the counter has written down; wired ``asked`` the counter commands
it and waits.

The framework finds the parts below by these names. Change them one by one, and look after each what
``eventmesh check template/told.yaml`` says. What else there may be stands in eventmesh's docs/application.md.
"""

from eventmesh.application import Words
from eventmesh.declared import Declared
from eventmesh.views import ViewShape

from . import facts
from .checks import CHECKS
from .counter import Counter
from .options import OPTIONS
from .wirings import WIRINGS
from .workbench import Workbench
from .workload import WORKLOAD, workload

#: Whatever class facts.py defines is declared: a new one needs no second mention.
DECLARED = Declared(facts)
SERVICES = {service.name: service for service in (Counter, Workbench)}
#: Tables that services keep of what others have said; a mesh file says who has which. There is none yet.
VIEWS: dict[str, ViewShape] = {}
#: How reports speak of what callers ask for.
WORDS = Words("repair", "repairs", "a repair", wirings=("told", "asked"))
#: The column whose values `eventmesh trace` takes.
STORY = "repair_id"

__all__ = [
    "CHECKS", "DECLARED", "OPTIONS", "SERVICES", "STORY", "VIEWS", "WIRINGS", "WORDS", "WORKLOAD", "workload",
]  # fmt: skip
