"""Requests as no well-meaning client sends them: nothing on the way tidies them up."""

from __future__ import annotations

import http.client
import json
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

TIMEOUT_S: Final = 120
PATIENCE_S: Final = 2
_MOST_BYTES: Final = 1 << 20  # of an answer that are read: a leak shows before
_CLIMBS: Final = (
    *("../" * 9, "..%2f" * 9, "%2e%2e/" * 9, "%2e%2e%2f" * 9, "..%252f" * 9, "....//" * 9),
    *("..\\" * 9, "..%5c" * 9, "..%c0%af" * 9, "%00/" + "../" * 9, "x/" + "../" * 10),
    *("/", "//", "%2f", "file:///", "file:%2f%2f%2f"),
)
_ENDS: Final = ("", "%00.jpg")
READING: Final = (
    *("/gradio_api/file={}", "/gradio_api/proxy={}", "/gradio_api/stream/{}"),
    *("/static/{}", "/assets/{}", "/source/{}", "/{}"),
)
ENDPOINTS: Final = {"inspect": ["auto", None], "compare": [None], "flag": ["auto", "wrong", ""]}
_ROUTES: Final = (
    *("/", "/config", "/health", "/source", "/v1/inspect", "/v1/compare", "/sign-in", "/sign-out"),
    *("/webhooks/label-studio", "/gradio_api/info", "/gradio_api/upload", "/gradio_api/queue/join"),
    *(
        "/gradio_api/call/inspect",
        "/gradio_api/call/flag",
        "/gradio_api/reset",
        "/gradio_api/cancel",
    ),
    *("/gradio_api/component_server", "/gradio_api/file=x", "/theme.css", "/manifest.json"),
)
_KINDS: Final = (
    *("application/json", "image/png", "multipart/form-data; boundary=x", "multipart/form-data"),
    *("application/x-www-form-urlencoded", "text/plain", "", "\xe9/\xe9; charset=utf-99"),
)
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0: the connection was closed without an answer."""

    status: int
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def send(address: str, raw: bytes, *, all_of_it: bool = False) -> Answer:
    """Send bytes over a connection of their own and read the answer to them.

    Args:
        address: of the app, http://host:port.
        raw: the whole request.
        all_of_it: nothing will follow, whatever it promises: without an answer for PATIENCE_S the
            server is told so. Only the head of the answer is read: a stream of events has no end.
    """
    place = urlsplit(address)
    started = time.perf_counter()
    status, body = 0, b""
    with (
        suppress(OSError, http.client.HTTPException),
        socket.create_connection((place.hostname or "", place.port or 80), TIMEOUT_S) as wire,
    ):
        with suppress(OSError):  # refused before all was sent: the answer is there all the same
            wire.sendall(raw)
            # Not at once: a server that sees its caller leave takes its answer back.
            if all_of_it and not select.select([wire], [], [], PATIENCE_S)[0]:
                wire.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(wire)
        response.begin()
        status = response.status
        if not all_of_it:
            body = response.read(_MOST_BYTES)
    return Answer(status, body, time.perf_counter() - started)


def ask(
    address: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> Answer:
    """GET a path just as it is written, or POST a body to it."""
    method = "GET" if body is None else "POST"
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {urlsplit(address).netloc}",
        "Connection: close",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body or b'')}",
    ]
    return send(address, "\r\n".join([*lines, "", ""]).encode() + (body or b""))


def call(address: str, name: str, data: list[Any]) -> Answer:
    """Call an endpoint by Gradio's plain HTTP: its event is begun, and its last message read."""
    begun = ask(address, f"/gradio_api/call/{name}", json.dumps({"data": data}).encode())
    event = (begun.json or {}).get("event_id") if isinstance(begun.json, dict) else None
    if event is None:
        return begun
    ended = ask(address, f"/gradio_api/call/{name}/{event}")
    return Answer(ended.status, ended.body, begun.seconds + ended.seconds)


def file_data(path: str) -> dict[str, Any]:
    """What stands for an uploaded file in a call."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def uploaded(address: str, name: str, data: bytes = b"hi") -> Answer:
    """The answer to an upload under a name."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--x--\r\n"
    return ask(address, "/gradio_api/upload", body, "multipart/form-data; boundary=x")


def climbing(secret: Path) -> list[str]:
    """Names of files that are none of a stranger's business, as a path that climbs there."""
    absolute = (str(secret), "/etc/passwd", "/proc/self/environ", str(Path("app.py").resolve()))
    near = ("data/ledger.sqlite3", "core/settings.py")
    places = [*(path.lstrip("/") for path in absolute), *near]
    return [
        quote(climb + place + end, safe="/%.:\\")
        for climb in _CLIMBS
        for place in places
        for end in _ENDS
    ]


def inner_addresses(port: int) -> list[str]:
    """Addresses of a server on this machine, written in many ways, and of private networks."""
    hosts = (
        *("127.0.0.1", "localhost", "LOCALHOST", "127.1", "127.0.1", "127.255.255.254", "0.0.0.0"),
        *("0", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "[::1]"),
        *("[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "localhost."),
        *("user:pw@127.0.0.1", "example.com@127.0.0.1", "127.0.0.1%2f", "①②⑦.⓪.⓪.①"),
    )
    local = [f"http://{host}:{port}/a.png" for host in hosts]
    schemes = ("https", "HTTP", "ftp", "gopher", "dict", "ws", "http:http", "\thttp", " http")
    local += [f"{scheme}://127.0.0.1:{port}/a.png" for scheme in schemes]
    local += [
        f"//127.0.0.1:{port}/a.png",
        f"http:\\\\127.0.0.1:{port}\\a.png",
        f"http:127.0.0.1:{port}",
    ]
    private = (
        "169.254.169.254/latest/meta-data",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "[fd00::1]",
    )
    return [
        *local,
        *(f"http://{host}/" for host in private),
        "file:///etc/passwd",
        "data:image/png,x",
    ]


@contextmanager
def listener() -> Iterator[tuple[int, list[Any]]]:
    """A port on this machine, and whoever came to it: nobody should."""
    came: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def wait() -> None:
            with suppress(OSError):
                while True:
                    wire, peer = server.accept()
                    came.append(peer)
                    wire.close()

        threading.Thread(target=wait, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def noise(seed: int, count: int) -> Iterator[bytes]:
    """So many requests of which hardly one is right; a seed gives the same ones."""
    source = random.Random(seed)

    def mostly(usual: Any, *others: Any) -> Any:
        return usual if source.random() < 0.85 else source.choice(others)

    for _ in range(count):
        body = _body(source)
        tail = mostly("", "/" + "a" * 300, "?x=%ff", "/..", "%")
        lines = [
            f"{source.choice(_METHODS)} {source.choice(_ROUTES)}{tail} "
            f"HTTP/{mostly('1.1', '1.0', '9.9')}",
            *mostly(["Host: 127.0.0.1"], [], ["Host: a", "Host: b"]),
            f"Content-Type: {source.choice(_KINDS)}",
            f"Content-Length: {mostly(len(body), len(body) // 2, len(body) + 9, '-1', 'x')}",
            "Connection: close",
            *mostly([], ["X: " + "y" * 9000], ["Transfer-Encoding: chunked"], ["\xff: \0"]),
        ]
        yield "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _body(source: random.Random) -> bytes:
    kind = source.randrange(5)
    if kind == 0:
        return source.randbytes(source.randrange(200))
    if kind == 1:
        return b"[" * source.randrange(1, 5000)
    values = (None, True, -1, 1e308, "x", "\0", [], {}, [[]], file_data("a"), {"a": {"a": {}}})
    data: Any = [source.choice(values) for _ in range(source.randrange(5))]
    body = json.dumps(
        source.choice((data, {"data": data}, {"data": data, "fn_index": source.randrange(-1, 99)}))
    ).encode()
    return body[: source.randrange(len(body))] if kind == 2 else body
