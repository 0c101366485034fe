"""Whatever happens to an upload, only files that arrived whole stay on the server."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from demo.uploads import _arrive

pytestmark = [  # Gradio leaves it to Python to close what did not arrive
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PICTURE = b"\xff\xd8" + b"steel" * 1000


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Files are closed here, where the warning of it is expected."""
    yield
    gc.collect()


def part(name: str, filename: str, data: bytes = PICTURE) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


def arrive(
    folder: Path, *chunks: bytes, most_bytes: int = 10_000, is_cut: bool = False
) -> list[str]:
    """What becomes of an upload whose body comes in chunks, and maybe breaks off."""
    more = [
        *({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks),
        {"type": "http.disconnect"} if is_cut else {"type": "http.request", "body": b"--x--\r\n"},
    ]
    messages: Iterator[Message] = iter(more)

    async def receive() -> Message:
        return next(messages)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    files, _, _ = asyncio.run(_arrive(request, folder, most_bytes, None, force_move=False))
    return files


def test_a_whole_upload_lies_where_gradio_looks_for_it_also_the_second_time(tmp_path: Path) -> None:
    [first] = arrive(tmp_path, part("files", "coil.jpg"))
    assert arrive(tmp_path, part("files", "coil.jpg")) == [first]
    arrived = Path(first)  # in a folder that is named after its bytes
    assert (arrived.parents[1], arrived.name, arrived.read_bytes()) == (
        *(tmp_path, "coil.jpg"),
        PICTURE,
    )
    assert list(tmp_path.iterdir()) == [arrived.parent]


def test_of_one_that_is_broken_off_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        arrive(tmp_path, part("files", "coil.jpg")[:2000], is_cut=True)
    assert list(tmp_path.iterdir()) == []


def test_of_one_that_fills_the_disk_nothing_stays_and_the_visitor_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", full)
    with pytest.raises(MultiPartException) as caught:
        arrive(tmp_path, part("files", "coil.jpg"))
    assert caught.value.message == (
        "There is no room for it on the server just now; try again later."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(part("files", ".."), HTTPException, id="a name that climbs"),
        pytest.param(part("files", "a.jpg", b"x" * 10_001), MultiPartException, id="too large"),
        pytest.param(b"nonsense", MultiPartException, id="no form"),
    ],
)
def test_of_one_that_is_refused_nothing_stays(
    body: bytes, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        arrive(tmp_path, body)
    assert list(tmp_path.iterdir()) == []


def test_files_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    assert arrive(tmp_path, part("other", "coil.jpg")) == []
    assert list(tmp_path.iterdir()) == []
