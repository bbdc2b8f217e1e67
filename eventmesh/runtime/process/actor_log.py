"""An actor's own log: a line per event, in the file that Ray keeps of its process.

structlog is imported with the first line: it takes a tenth of a second, and most processes have nothing to say.
"""

from __future__ import annotations

from typing import Any


class _WhenNeeded:
    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(), name)


#: structlog's logger.
log: Any = _WhenNeeded()
