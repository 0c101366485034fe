"""A proxy in front of the real Label Studio that loses, breaks, delays and repeats what passes.

Every kind of fault is one of those that happen between two machines. Which request meets which
fault is decided by the test, or drawn from a seed; what happened is kept for the report.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

Fault = Literal[
    "reset before the request",
    "reset after the request",
    "answer lost after it was done",
    "500 without doing it",
    "500 after it was done",
    "502 without doing it",
    "503 with Retry-After",
    "429 with Retry-After",
    "408 without doing it",
    "stall without doing it",
    "stall after it was done",
    "truncated JSON",
    "HTML instead of JSON",
    "slow drip",
    "delivered twice",
    "token run out",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
# The request reached Label Studio although the answer says nothing of it.
DONE: frozenset[Fault] = frozenset(
    {
        "answer lost after it was done",
        "500 after it was done",
        "stall after it was done",
        "truncated JSON",
        "HTML instead of JSON",
    }
)
STALL_S = 30.0


@dataclass(frozen=True)
class Request:
    """What a fault may depend on."""

    method: str
    path: str
    number: int  # 1 for the first that passed

    @property
    def imports_a_task(self) -> bool:
        return self.method == "POST" and "return_task_ids" in self.path


Plan = Callable[[Request], Fault | None]


@dataclass
class FaultProxy:
    """Listens on a free port of this machine and passes requests on to `upstream`."""

    upstream: int
    plan: Plan = lambda request: None
    port: int = 0
    injected: Counter[Fault] = field(default_factory=Counter)
    passed: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Cancelled: the test is over while a request stalls.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._exchange(reader, writer)
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        request = Request(method, path, len(self.passed) + 1)
        self.passed.append(request)
        fault = self.plan(request)
        if fault is not None:
            self.injected[fault] += 1
        if fault == "reset before the request":
            return _reset(writer)
        body = await reader.readexactly(_length(head))
        canned = _canned(fault)
        if canned is not None:
            writer.write(canned)
            return await writer.drain()
        if fault == "reset after the request":
            return _reset(writer)
        if fault == "stall without doing it":
            return await asyncio.sleep(STALL_S)
        answer = await self._ask(head, body)
        if fault == "delivered twice":
            answer = await self._ask(head, body)
        if fault == "answer lost after it was done":
            return _reset(writer)
        if fault == "stall after it was done":
            return await asyncio.sleep(STALL_S)
        if fault == "500 after it was done":
            answer = _answer("500 Internal Server Error", b"{}")
        if fault == "HTML instead of JSON":
            answer = _answer("200 OK", b"<html>Welcome to the hotel's network</html>")
        if fault == "truncated JSON":
            end = answer.index(b"\r\n\r\n") + 4
            answer = _answer("201 Created", answer[end : end + (len(answer) - end) // 2])
        if fault == "slow drip":
            for start in range(0, len(answer), 64):
                writer.write(answer[start : start + 64])
                await writer.drain()
                await asyncio.sleep(0.001)
            return None
        writer.write(answer)
        return await writer.drain()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        """One request to the real server, over a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(_closing(head) + body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        end = answer.index(b"\r\n\r\n") + 4
        return _closing(answer[:end]) + answer[end:]


@contextmanager
def fault_proxy(upstream: int, plan: Plan | None = None) -> Iterator[FaultProxy]:
    """A proxy that runs in a thread for the length of the block."""
    proxy = FaultProxy(upstream, plan or (lambda request: None))
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        loop.run_until_complete(proxy.serve(ready, stop))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, name="fault proxy", daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def drawn(seed: int, *, share: float, kinds: tuple[Fault, ...] = FAULTS) -> Plan:
    """Faults drawn from a seed for that share of all requests."""
    source = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        return source.choice(kinds) if source.random() < share else None

    return plan


def on_import(fault: Fault, *, times: int = 1) -> Plan:
    """The fault for the first imports of a task; everything else passes."""
    left = [times]

    def plan(request: Request) -> Fault | None:
        if request.imports_a_task and left[0]:
            left[0] -= 1
            return fault
        return None

    return plan


def _canned(fault: Fault | None) -> bytes | None:
    """The answers that need no server."""
    wait = b"Retry-After: 7\r\n"
    match fault:
        case "500 without doing it":
            return _answer("500 Internal Server Error", b"{}")
        case "502 without doing it":
            return _answer("502 Bad Gateway", b"<html>bad gateway</html>")
        case "503 with Retry-After":
            return _answer("503 Service Unavailable", b"{}", wait)
        case "429 with Retry-After":
            return _answer("429 Too Many Requests", b"{}", wait)
        case "408 without doing it":
            return _answer("408 Request Timeout", b"{}")
        case "token run out":
            return _answer("401 Unauthorized", b'{"detail": "Token is expired"}')
    return None


def _answer(status: str, body: bytes, more: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"Connection: close\r\n\r\n" + body


def _closing(head: bytes) -> bytes:
    """A head after whose message the connection ends: every request has one of its own."""
    kept = [
        line
        for line in head.rstrip(b"\r\n").split(b"\r\n")
        if not line.lower().startswith((b"connection:", b"keep-alive:", b"expect:"))
    ]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n"


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    transport.abort()
