"""The work of the benchmark ``backbone`` on the log and on a service, and the same work on other people's systems.

A module has ``NAME``, ``server`` (a running server's address, for as long as it is entered), and the roles: functions
that run in a process of their own, wait at a barrier until all are ready, and return what they measured. That of
another system has ``missing()``, too: what is not installed, or None. Nothing of a peer is imported until it is used.
"""
