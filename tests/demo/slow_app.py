"""The real app on a machine on which every pass over tiles takes half a second. A program."""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Serve until killed."""
    sys.path.insert(0, str(ROOT))  # as where app.py is started itself
    from models import _predictors
    from models._steps import tell

    def slowly(tiles: int) -> None:
        time.sleep(0.5)
        tell(tiles)

    _predictors.tell = slowly
    runpy.run_path(str(ROOT / "app.py"), run_name="__main__")


if __name__ == "__main__":
    main()
