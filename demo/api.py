"""The public API: typed endpoints that a program calls, apart from everything the pages do.

Annotations are read at run time to describe the endpoints, so they are not postponed here.
"""

from typing import Any, Literal

import gradio as gr

from demo import handlers
from demo.service import Service


def register(service: Service) -> None:
    """Add the endpoints to the page that is being built.

    They are bare functions, not events of components, so nothing decodes an upload or fills in a
    value before they run; each checks its own input.
    """

    # The annotations are the schema that clients are shown; values are checked by the handlers.
    def inspect(
        image: gr.FileData, model: str = "auto", score_threshold: float | None = None
    ) -> dict:  # type: ignore[type-arg]
        """Inspect one image: findings, verdict, uncertainty and its reasons.

        Args:
            image: an uploaded PNG, JPEG, BMP, TIFF or WebP file.
            model: name of a served model, or "auto" for the detector that validated best.
            score_threshold: lowest score of a finding in [0, 1]; null for the model's own.
        """
        return handlers.answer_inspect(service, image, model, score_threshold)

    def compare(image: gr.FileData, models: list[str] | None = None) -> dict:  # type: ignore[type-arg]
        """Let several models inspect one image and say how far they agree.

        Args:
            image: an uploaded PNG, JPEG, BMP, TIFF or WebP file.
            models: names of served models; null for all of them.
        """
        return handlers.answer_compare(service, image, models)

    def flag(
        image: gr.FileData,
        model: str,
        reason: Literal["wrong", "missed", "new_defect"],
        note: str = "",
    ) -> dict:  # type: ignore[type-arg]
        """Put an image into the review queue by hand; the same image stays one item.

        Args:
            image: an uploaded PNG, JPEG, BMP, TIFF or WebP file.
            model: whose answer is doubted; a served model's name, or "auto".
            reason: "wrong", "missed" or "new_defect".
            note: in your own words.
        """
        return handlers.answer_flag(service, image, model, reason, note)

    def models() -> list[dict]:  # type: ignore[type-arg]
        """List the models that are served."""
        return handlers.answer_models(service)

    def status() -> dict:  # type: ignore[type-arg]
        """Say what the review queue holds, which models are loaded, and what was trained last."""
        return handlers.answer_status(service)

    shared: dict[str, Any] = {"concurrency_id": "models"}
    gr.api(inspect, api_name="inspect", **shared)
    gr.api(compare, api_name="compare", **shared)
    gr.api(flag, api_name="flag", **shared)
    gr.api(models, api_name="models")
    gr.api(status, api_name="status")
