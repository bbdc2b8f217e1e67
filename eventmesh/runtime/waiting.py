"""Why a mesh is not ready: in words, from what each of its services says of itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

#: What a task is waiting for, by its phase.
PHASES = {
    "stopped": "has no connection to the broker",
    "granting": "waits for the broker to grant it its partition",
    "folding": "folds what the log holds of its own facts",
    "catching-up": "brings its views up to where it was",
    "dead": "was fenced by a later start of itself",
}


#: What a broker says of its log that does not answer: nothing.
NO_LOG: Mapping[str, Any] = {"ends": {}, "stopped": None}


def explained(statuses: Mapping[str, Mapping[str, Any] | str], log: Mapping[str, Any]) -> str:
    """Who is not ready and why, a clause for each reason; ``every service is ready`` where all are.

    ``statuses`` are those of the instances by name (:meth:`~eventmesh.runtime.instance.Instance.status`), or a text of
    why there is none. ``log`` has the ``ends`` by ``topic/partition``, and why it has ``stopped``, or None.
    """
    if log["stopped"] is not None:
        return f"broker: {log['stopped']}. It opens the log again as soon as the disk lets it"
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, said in sorted(statuses.items()):
        reason = said if isinstance(said, str) else _reason(said, log["ends"])
        if reason is not None:
            reasons[reason].append(name)
    if not reasons:
        return "every service is ready"
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())


def _reason(status: Mapping[str, Any], ends: Mapping[str, int]) -> str | None:
    phases = [phase for phase in status["phases"].values() if phase != "live"]
    if phases:
        cause = f" ({status['unreached']})" if status.get("unreached") else ""
        return PHASES[phases[0]] + cause
    behind = sorted(
        name
        for partition, progress in status["progress"].items()
        for name in status["inputs"][partition]
        if progress.get(name, 0) < ends.get(name, 0)
    )
    if behind:
        return f"has not decided all of {', '.join(dict.fromkeys(behind))}"
    return None if status["idle"] else "waits for an answer, or for its own facts to be acknowledged"
