"""What a process has used."""

from __future__ import annotations

import psutil


def usage(process: psutil.Process) -> dict[str, float]:
    """``cpu_s`` since the process began, ``memory_mb`` resident, ``private_mb`` not shared with other processes."""
    times, memory = process.cpu_times(), process.memory_full_info()
    return {
        "cpu_s": times.user + times.system,
        "memory_mb": memory.rss / 1e6,
        "private_mb": memory.uss / 1e6,
    }
