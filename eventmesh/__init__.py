"""eventmesh: a laboratory for one decision, should services ask each other, or listen?"""

__version__ = "0.1.0"
