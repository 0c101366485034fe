"""Start the app: `python app.py`, or a Hugging Face Space."""

from __future__ import annotations

import logging
import os
import sys

# Before gradio and ultralytics are imported: neither reports home, neither installs anything.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")

from core.ending import end_on_sigterm, end_undisturbed, leave
from core.errors import RollmarkError
from core.logs import set_up_logging
from core.scratch import scratch
from core.settings import Settings, load_settings

logger = logging.getLogger("app")


def main() -> None:
    """Read the settings, bring back what was kept, serve until stopped."""
    settings = load_settings()
    set_up_logging(settings=settings)
    # By itself gradio puts uploads where every user of the machine finds, or blocks, them.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(scratch() / "uploads"))
    from demo.listening import check_address

    check_address(settings.serving)
    from demo import gpu
    from demo.keeping import kept

    gpu.prepare()
    with kept(settings.paths):
        serve(settings)


def serve(settings: Settings) -> None:
    """Build the page and serve it until stopped, then let what is being answered be answered."""
    from demo.following import follow_hub
    from demo.listening import in_address
    from demo.service import Service
    from demo.ui import build, launch

    service = Service(settings)
    blocks = build(settings, service=service)
    service.preload()
    service.courier.start()
    follow_hub(settings)
    address = f"http://{in_address(settings.serving.host)}:{settings.serving.port}"
    logger.info("Rollmark opens at %s", address)
    try:
        launch(blocks, settings, service=service)
    finally:
        end_undisturbed()
        blocks.close(verbose=False)
        logger.info("Rollmark has closed")


if __name__ == "__main__":
    end_on_sigterm(0)
    try:
        main()
    except RollmarkError as exc:
        print(exc, file=sys.stderr)
        leave(1)
    except (KeyboardInterrupt, SystemExit):  # told to end
        pass
    leave(0)
