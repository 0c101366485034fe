"""The content-addressed store: complete or not there, once, and never another image's bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import threading

import pytest

from core.errors import InputError, LedgerError
from core.images import ImageStore

STEEL = b"bytes of a steel image"
SHA = hashlib.sha256(STEEL).hexdigest()


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "images")


def files(store):
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_bytes_are_found_under_their_hash(store):
    assert store.put(STEEL) == SHA
    assert store.get(SHA) == STEEL
    assert files(store) == [store.root / SHA[:2] / SHA[2:4] / SHA]


def test_putting_twice_writes_once(store):
    store.put(STEEL)
    before = store.path(SHA).stat()
    store.put(STEEL)
    after = store.path(SHA).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_cut_short_by_another_program_is_written_again(store):
    store.put(STEEL)
    store.path(SHA).write_bytes(STEEL[:5])
    store.put(STEEL)
    assert store.get(SHA) == STEEL


def test_a_file_damaged_at_its_length_is_written_again(store):
    store.put(STEEL)
    store.path(SHA).write_bytes(b"bytes of a stool image")
    store.put(STEEL)
    assert store.get(SHA) == STEEL


def test_many_threads_putting_the_same_image_leave_one_file(store):
    threads = [threading.Thread(target=store.put, args=(STEEL,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.read_bytes() for file in files(store)] == [STEEL]


def test_content_is_synced_before_the_name_and_the_folders_after_it(store, monkeypatch):
    order = []
    sync, rename = os.fsync, os.replace

    def recording_sync(descriptor):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def recording_rename(source, target):
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(os, "replace", recording_rename)
    store.put(STEEL)
    # The folder of the file, then those that hold the folders which had to be made.
    assert order == ["file", "rename", "folder", "folder", "folder", "folder"]


def test_full_disk_is_one_sentence_and_leaves_nothing_behind(store, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left on device"):
        store.put(STEEL)
    assert files(store) == []


def test_absent_image_is_an_error_not_nothing(store):
    with pytest.raises(LedgerError, match=rf"Image {SHA[:12]} cannot be read"):
        store.get(SHA)


def test_damaged_image_is_not_handed_out(store):
    store.put(STEEL)
    store.path(SHA).write_bytes(STEEL.replace(b"steel", b"stool"))
    with pytest.raises(LedgerError, match="is damaged"):
        store.get(SHA)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", SHA[:-1], SHA.upper(), SHA + "\n", "/" + SHA[1:]]
)
def test_what_is_no_hash_is_no_path(store, name):
    with pytest.raises(InputError, match="Not an image hash"):
        store.path(name)
