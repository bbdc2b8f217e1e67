"""Laws that say what a measurement should show: the closed form to stand beside the measured value.

Each takes plain numbers and gives one. None knows how the value was measured, so each can be checked by hand.
"""

from __future__ import annotations

import math


def little(throughput_per_s: float, mean_latency_s: float) -> float:
    """V9, the mean number of open requests: ``L = lambda W``.

    Source: J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", Operations Research 9(3), 1961.
    It holds for any arrivals and any service, over a window that is long beside the latencies.
    """
    return throughput_per_s * mean_latency_s


def stall_mean_open_s(stall_s: float, run_s: float, service_s: float) -> float:
    """V13, the mean latency in seconds that an open loop reports: ``service + stall^2 / (2 run)``.

    One stall of ``stall_s`` within ``run_s``. A request meant for the stall waits for the rest of it, half the stall
    on average, and the share ``stall / run`` of all requests is meant for it. What piled up is taken to be
    served at once when the stall ends. Source: G. Tene, "How NOT to Measure Latency", 2015 (coordinated omission).
    """
    return service_s + stall_s**2 / (2 * run_s)


def stall_mean_closed_s(stall_s: float, run_s: float, service_s: float) -> float:
    """V13, the mean latency in seconds that a closed loop of one caller reports over the same stall.

    It sends ``(run - stall) / service`` requests that see nothing, and a single one that sees the whole stall: the
    omission that makes a bad half minute look harmless.
    """
    undisturbed = (run_s - stall_s) / service_s
    return (undisturbed * service_s + stall_s + service_s) / (undisturbed + 1)


def outage_share(outage_s: float, run_s: float) -> float:
    """V7, the share of requests that fail where the callee is away for ``outage_s`` of ``run_s``: ``T / W``.

    Requests come evenly, nobody retries, and each of them needs who is away. Retries that outlast the end of the outage
    make the share smaller, by their own length over ``run_s``.
    """
    return outage_s / run_s


def fluid_backlog(arrivals_per_s: float, outage_s: float) -> float:
    """V8, the requests that wait when an outage ends: ``B = lambda T``.

    Source: the fluid approximation of a queue whose server stops; G. F. Newell, "Applications of Queueing Theory",
    1982. Nothing is lost and nothing is served meanwhile.
    """
    return arrivals_per_s * outage_s


def fluid_drain_s(arrivals_per_s: float, outage_s: float, served_per_s: float) -> float:
    """V8, the seconds until that backlog is gone while others go on arriving: ``lambda T / (mu - lambda)``.

    Without an end where no more is served than arrives.
    """
    if served_per_s <= arrivals_per_s:
        return math.inf
    return fluid_backlog(arrivals_per_s, outage_s) / (served_per_s - arrivals_per_s)
