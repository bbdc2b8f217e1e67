"""Laws that say what a measurement should show: the closed form to stand beside the measured value.

Each takes plain numbers and gives one. None knows how the value was measured, so each can be checked by hand.
"""

from __future__ import annotations


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
