"""Writes docs/faults.md from the faults themselves: ``python docs/faults.py > docs/faults.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import typer

from eventmesh.runtime.faults import FAULTS, PLACES, Split

OPENING = """\
# Faults

This page is written from the faults themselves: `python docs/faults.py > docs/faults.md`.

A fault is data: what goes wrong, where, and for how long (`lasts_s`, in seconds). It expires by
itself. When it happens stands beside it, as one of four moments:

```json
{"moment": {"kind": "at-offset", "partition": "stock/0", "offset": 40},
 "fault": {"kind": "kill", "process": "inventory/0"}}
```

- `at-offset`: as soon as `partition` shows `offset`;
- `at-time`: so many `seconds` after the load began;
- `within-offsets`, `within-time`: one of these, drawn from the seed between the two `offsets` or
  `seconds` that are given.

A process goes by its name: `broker`, `orders/0`, `generator` for whoever brings the load, or the
name of a caller. A side of a link (`source`, `target`) is one such name or a list of them; the name
of a service means all its processes, `*` everybody else. `direction` is `to` the target, `from` it,
or `both`. `toxicity` is the share of the connections that are hit. On a link the order of a stream
stays, whatever happens to it; loss, duplication and reordering hit whole asks and replies, never
what goes to the broker or comes from it.

What does not exist on a runtime is refused before anything starts. On Ray a process that is frozen
for longer than the supervisor's lease is killed by the supervisor: the fault is then a kill.
"""
RUNTIMES = {"simulated": "simulated", "on_ray": "Ray"}


def reference() -> str:
    """The whole page."""
    return "\n".join([OPENING, *(line for place in PLACES for line in _chapter(place))])


def _chapter(place: str) -> Iterator[str]:
    yield from (f"## Of {place}", "", f"| kind | what happens | fields | {' | '.join(RUNTIMES.values())} |")
    yield f"| --- | --- | --- |{' --- |' * len(RUNTIMES)}"
    for kind, model in FAULTS.items():
        if issubclass(model, PLACES[place]) or (model is Split and place == "a link"):
            assert model.__doc__ is not None
            there = ["yes" if runtime in model.runtimes else "no" for runtime in RUNTIMES]
            yield f"| `{kind}` | {model.__doc__} | {_fields(model)} | {' | '.join(there)} |"
    yield ""


def _fields(model: Any) -> str:
    shown = (
        f"`{name}`{'' if field.is_required() else f' ({_default(field)})'}"
        for name, field in model.model_fields.items()
        if name != "kind"
    )
    return ", ".join(shown)


def _default(field: Any) -> str:
    choices = get_args(field.annotation)
    among = f", one of {', '.join(map(str, choices))}" if len(choices) > 1 and isinstance(choices[0], str) else ""
    default = field.default if field.default != () else "all"
    return f"{default if not isinstance(default, float) else f'{default:g}'}{among}"


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
