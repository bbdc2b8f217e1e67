"""Help that begins with examples: what most people look for, and can type at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

#: Where the examples begin in the help text of a command; ``\b`` keeps their lines as they are.
MARK = "\b\nExample"


def split(help_text: str) -> tuple[str, list[str]]:
    """A help text without its examples, and those, line by line, as they are typed."""
    before, _, shown = inspect.cleandoc(help_text).partition(MARK)
    lines = shown.splitlines()[1:]
    examples = [line.removeprefix("  ") for line in lines if line.startswith("  ")]
    after = "\n".join(line for line in lines if not line.startswith("  "))
    return "\n\n".join(part for part in (before.strip(), after.strip()) if part), examples


class _ExamplesFirst:
    """For a command or a group of typer's."""

    help: str | None

    def format_help(self, context: Any, formatter: Any) -> None:
        _, examples = split(self.help or "")
        formatter.write("Examples:\n" + "".join(f"  {line}\n" for line in examples) + "\n")
        super().format_help(context, formatter)  # type: ignore[misc]

    def format_help_text(self, context: Any, formatter: Any) -> None:
        whole = self.help
        self.help, _ = split(whole or "")
        try:
            super().format_help_text(context, formatter)  # type: ignore[misc]
        finally:
            self.help = whole

    def get_short_help_str(self, limit: int = 0) -> str:
        """The first sentence, whole: it folds where it is too long."""
        return str(super().get_short_help_str(limit=1_000))  # type: ignore[misc]

    def collect_usage_pieces(self, context: Any) -> list[str]:
        """With an argument as it is everywhere: bare if it is needed, in brackets if not. Typer adds braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(context)]  # type: ignore[misc]


class Command(_ExamplesFirst, TyperCommand):
    """A command whose help begins with examples."""


class _Group(_ExamplesFirst, TyperGroup):
    pass


class Commands(typer.Typer):
    """A group of commands whose help, and theirs, begins with examples."""

    def __init__(self, **settings: Any) -> None:
        # Plain help: examples stay as they are to be typed, whatever brackets they have.
        super().__init__(
            cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, **settings
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a command, as :meth:`typer.Typer.command` does."""
        return super().command(name, **{"cls": Command, **settings})
