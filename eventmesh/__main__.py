"""Where the installed command and ``python -m eventmesh`` begin: finds ``cli.py`` where it ships, and runs it."""

from __future__ import annotations

import sys

from eventmesh.shipped import home


def main() -> None:
    """Run the command line. First on the path, its folder wins over a ``cli`` or ``benchmarks`` of anybody else."""
    sys.path.insert(0, str(home()))
    from cli import main as run

    run()


if __name__ == "__main__":
    main()
