"""Makes the README's pictures: ``python docs/pictures.py runs/latest``, of a run with a report. Needs Chromium."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from eventmesh import shipped
from eventmesh.lab.terminal import Screen
from eventmesh.shop.demo import tell

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Pixels: the first screen of a report, and a terminal of 102 columns.
REPORT, DEMO = (1000, 1120), (1000, 850)
COLUMNS = 102


def shoot(page: Path, picture: Path, size: tuple[int, int]) -> None:
    """Write what a browser of this size, in pixels, shows of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser: expected one of {', '.join(BROWSERS)} on the PATH")
    width, height = size
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1",
         f"--window-size={width},{height}", f"--screenshot={picture}", page.resolve().as_uri()],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def demo_page() -> str:
    """What ``eventmesh demo`` shows, as HTML."""
    screen = Screen()
    screen._console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    screen.stories(tell(shipped.folder("meshes"), seed=1))
    return screen._console.export_html()


def main(run: Path) -> None:
    """Make both pictures."""
    IMAGES.mkdir(exist_ok=True)
    shoot(run / "report.html", IMAGES / "report.png", REPORT)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "demo.html"
        page.write_text(demo_page(), encoding="utf-8")
        shoot(page, IMAGES / "demo.png", DEMO)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
