"""What killed processes left, and what must not be taken for it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.files import STALE_S, refusal, remove_stale, remove_unfinished, write_atomically


def _aged(folder: Path, age_s: float) -> Path:
    folder.mkdir()
    (folder / "file").write_text("x")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_what_is_written_may_be_read_by_other_users_of_the_machine(tmp_path: Path) -> None:
    """A release that root has bundled is served by an app of another user."""
    write_atomically(tmp_path / "new" / "config.json", b"{}")
    assert (tmp_path / "new" / "config.json").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_what_was_there_and_says_which_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "last.pt", b"whole")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(tmp_path / "last.pt", b"half")
    assert refusal(caught.value) == (
        f"{tmp_path / 'last.pt'} cannot be used: No space left on device; make room, or name "
        "another place."
    )
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
        ("last.pt", b"whole")
    ]


def test_a_pipe_or_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    """`--json /dev/stdout` of root must not put a file where the system's own name was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"{}")
        assert os.read(reader, 10) == b"{}"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    script = "from pathlib import Path; from core.files import write_atomically as w; "
    script += "w(Path('/proc/self/fd/1'), [b'1', b'2'])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert said.stdout == b"12"


@pytest.mark.parametrize("letter", ["a", "ü", "鋼"])
def test_a_name_may_be_as_long_as_disks_take(letter: str, tmp_path: Path) -> None:
    """255 bytes; the temporary name beside it is no longer."""
    name = letter * (251 // len(letter.encode())) + ".png"
    write_atomically(tmp_path / name, b"mask")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "path",
    [pytest.param(Path("x" * 400), id="too long"), pytest.param(Path("loop"), id="a loop")],
)
def test_a_place_that_no_disk_finds_is_refused_in_a_sentence(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"name too long|levels of symbolic links") as caught:
        path.stat()
    told = f"{path} cannot be used: {caught.value.strerror}; make room, or name another place."
    assert refusal(caught.value) == told


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNREFUSED])
def test_an_error_that_may_be_a_bug_is_no_refusal(number: int) -> None:
    assert refusal(OSError(number, "unforeseen", "a file")) is None


def test_only_old_folders_of_that_name_are_removed(tmp_path: Path) -> None:
    old = _aged(tmp_path / "ours-old", STALE_S + 60)
    fresh = _aged(tmp_path / "ours-fresh", STALE_S - 60)
    other = _aged(tmp_path / "theirs", STALE_S + 60)
    file = tmp_path / "ours-file"
    file.write_text("x")
    os.utime(file, (0, 0))
    remove_stale(tmp_path, "ours-*")
    assert [path.exists() for path in (old, fresh, other, file)] == [False, True, True, True]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = _aged(tmp_path / "precious", 0)
    (tmp_path / "ours-link").symlink_to(precious)
    os.utime(tmp_path / "ours-link", (0, 0), follow_symlinks=False)
    remove_stale(tmp_path, "ours-*")
    assert (precious / "file").exists()


def test_a_folder_that_is_not_there_holds_nothing_stale(tmp_path: Path) -> None:
    remove_stale(tmp_path / "missing", "*")


def test_only_old_unfinished_files_of_that_name_are_removed(tmp_path: Path) -> None:
    names = (".last.pt.a1b2c3_4", ".last.pt.fresh_12", ".best.pt.a1b2c3_4", ".lock", "last.pt")
    for name in names:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (time.time() - STALE_S - 60 * (-1) ** ("fresh" in name),) * 2)
    (tmp_path / ".last.pt.link_567").symlink_to(tmp_path / "last.pt")
    os.utime(tmp_path / ".last.pt.link_567", (0, 0), follow_symlinks=False)
    remove_unfinished(tmp_path, "last.pt")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names, ".last.pt.link_567"} - {".last.pt.a1b2c3_4"}


def test_what_a_killed_writer_left_is_named_as_it_is_looked_for(tmp_path: Path) -> None:
    target = tmp_path / ("ledger-" + "1" * 60 + ".db")

    def killed() -> Iterator[bytes]:
        yield b"half"
        [left] = tmp_path.iterdir()
        os.utime(left, (0, 0))
        remove_unfinished(tmp_path, "other-*")
        assert left.exists()
        remove_unfinished(tmp_path, "ledger-*")
        assert not left.exists()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_atomically(target, killed())
