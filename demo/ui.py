"""The page: tabs, API and the server's own routes put together; layout and wiring only."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from active_learning.webhook import MAX_BODY_BYTES, Webhook
from core.images import MEGA
from core.settings import Settings
from demo import api, gpu, misdirected, source
from demo.batch_jobs import Batches
from demo.callers import Page, refuse_addresses
from demo.direct import Direct
from demo.listening import in_address, reach_itself
from demo.service import Service
from demo.sign_in import SignIn
from demo.tabs import batch, compare, inspect, live, models, review, training
from demo.theme import STYLE, head, theme
from demo.uploads import closed_routes, take_uploads_whole

_MASTHEAD: Final = """
<header class="masthead">
  <h1>Rollmark</h1><p>Steel surface inspection</p>
  <button type="button" id="show-keys">Keys <kbd>?</kbd></button>
</header>
<dialog id="keys" aria-labelledby="keys-title">
  <h2 id="keys-title">Keys</h2>
  <dl>
    <dt><kbd>Enter</kbd></dt><dd>Inspect or compare the picture again</dd>
    <dt><kbd>O</kbd></dt><dd>Open a picture</dd>
    <dt><kbd>Ctrl</kbd> <kbd>V</kbd></dt><dd>Paste a picture</dd>
    <dt><kbd>↑</kbd> <kbd>↓</kbd></dt><dd>Go through the findings, a batch or the review queue</dd>
    <dt><kbd>Space</kbd></dt><dd>Highlight the finding</dd>
    <dt><kbd>Esc</kbd></dt><dd>Let go of the finding</dd>
    <dt><kbd>?</kbd></dt><dd>Show or hide these keys</dd>
  </dl>
  <form method="dialog"><button>Close</button></form>
</dialog>
"""
_FOOT: Final = """
<footer class="foot">Rollmark is free software under the AGPL-3.0.
<a href="source" download>Source of this very version{commit}</a></footer>
"""
_CACHE_CHECK_S, _CACHE_AGE_S = 600, 3600
_VISITORS: Final = 500  # whose pages are remembered at a time
_MODEL_CALLS: Final = 16  # at a time; those of one network are answered together


def build(settings: Settings, *, service: Service | None = None) -> Any:
    """The whole app, not yet launched.

    Args:
        settings: how it is served.
        service: what inspects; a new one if None.

    Returns:
        A `gr.Blocks`.
    """
    service = service or Service(settings)
    sign_in = SignIn(settings.serving)
    batches = Batches(service, settings)
    batches.start()
    with Page(
        title="Rollmark",
        analytics_enabled=False,
        delete_cache=(_CACHE_CHECK_S, _CACHE_AGE_S),
        fill_width=True,
    ) as blocks:
        api.register(service)  # first: an event of a page must not take an endpoint's name
        gr.HTML(_MASTHEAD)
        own = batch.remembered()
        with gr.Tabs() as tabs:
            with gr.Tab("Inspect", id="inspect"):
                inspected = inspect.build(service, batches, blocks)
            with gr.Tab("Compare", id="compare") as tab:
                compare.build(service, batches.comparisons, inspected, blocks, tabs, tab)
            with gr.Tab("Batch", id="batch"):
                batch.build(service, batches, own, blocks, tabs)
            with gr.Tab("Live", id="live"):
                live.build(service, settings, blocks)
            with gr.Tab(review.TITLE, id="review") as tab:
                review.build(service, settings, tabs, tab)
            with gr.Tab(training.TITLE, id="training") as tab:
                training.build(service, settings, tabs, tab)
            with gr.Tab("Models", id="models") as tab:
                models.build(service, tab)
        sign_in.place(blocks)
        known = source.commit()
        gr.HTML(_FOOT.format(commit="" if known == source.UNKNOWN else f" ({known})"))
    sign_in.guard(blocks)
    blocks.sign_in = sign_in  # whose routes `launch` serves
    refuse_addresses(blocks)
    blocks.queue(max_size=settings.serving.queue_size, default_concurrency_limit=_MODEL_CALLS)
    return blocks


def launch(blocks: Any, settings: Settings, *, service: Service, wait: bool = True) -> str:
    """Serve the app.

    Args:
        blocks: what `build` returned.
        settings: host, port and caps.
        service: whose models `/health` counts.
        wait: return only when the server is stopped.

    Returns:
        The address of the app.
    """
    take_uploads_whole()
    serving = settings.serving
    reach_itself(serving.host)
    is_space = gr.utils.get_space() is not None
    _, address, _ = blocks.launch(
        server_name=None if is_space else in_address(serving.host),  # a Space says where
        server_port=None if is_space else serving.port,
        prevent_thread_lock=not wait,
        quiet=True,
        share=False,
        show_error=False,  # only sentences that were written for people leave the server
        run_history=False,  # a mill's pictures do not stay in a browser
        enable_monitoring=False,
        footer_links=["api", "gradio", "settings"],
        max_file_size=int(max(serving.max_image_mb, serving.max_upload_mb) * MEGA),
        allowed_paths=[],
        blocked_paths=[str(settings.paths.data.resolve()), str(settings.paths.runs.resolve())],
        state_session_capacity=_VISITORS,
        ssr_mode=False,
        # It has answered by then. One that takes seconds for its page, on a busy machine, would be
        # taken for one that cannot be reached, and ended.
        _frontend=False,
        app_kwargs={
            "routes": [*_routes(service, settings), *blocks.sign_in.routes()],
            "exception_handlers": misdirected.handlers(),
        },
        theme=theme(),
        css_paths=[STYLE],
        head=head(),
    )
    return str(address)


def _routes(service: Service, settings: Settings) -> list[Route]:
    """Routes beside Gradio's own; they come first."""
    webhook = Webhook(settings.label_studio, service.courier.poll_now)

    def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "models": len(service.models())})

    def source_code(_: Request) -> Response:
        name = f"rollmark-{source.commit()}.tar.gz"
        return Response(
            source.archive(),
            media_type="application/gzip",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def label_studio(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
        accepted = webhook.handle_webhook(request.headers, bytes(body))
        return Response(status_code=200 if accepted else 401)

    # A lent GPU is counted against the visitor whom Gradio knows, and here is none.
    direct = Direct(service, settings.serving, at_once=_MODEL_CALLS)
    return [
        *([] if gpu.is_lent() else direct.routes()),
        *closed_routes(),
        Route("/health", health),
        Route("/source", source_code),
        Route("/webhooks/label-studio", label_studio, methods=["POST"]),
    ]
