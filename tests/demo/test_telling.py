"""Whoever calls the server learns what is wrong with it, and not where its files lie."""

from __future__ import annotations

import logging
from pathlib import Path

import gradio as gr
import pytest

from core.errors import LedgerError, UnknownModelError
from core.settings import PathSettings, ServingSettings, Settings
from demo.handlers import answer_status, sentence_of
from demo.service import Service
from demo.telling import without_places
from tests.demo import releases


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        pytest.param(
            "The ledger sqlite:////srv/mill/ledger.db is locked: wait (database is locked).",
            "The ledger … is locked: wait (database is locked).",
            id="the ledger",
        ),
        pytest.param(
            "The ledger postgresql+psycopg://me:***@10.0.0.5:5432/mill cannot be reached: check "
            'it (connection to server at "10.0.0.5" (10.0.0.5), port 5432 failed: refused).',
            "The ledger … cannot be reached: check it (connection to server at … failed: refused).",
            id="a database's server",
        ),
        pytest.param(
            "The ledger failed: failed to resolve host 'db.mill.example': unknown.",
            "The ledger failed: failed to resolve host '…': unknown.",
            id="a host",
        ),
        pytest.param(
            "Image 0a1b could not be stored under /srv/mill/images: No space left on device; 9 "
            "bytes of writable space are needed.",
            "Image 0a1b could not be stored under …: No space left on device; 9 bytes of writable "
            "space are needed.",
            id="a folder",
        ),
        pytest.param(
            "No weights for grace: none are bundled in /app/hub/bundled or promoted in /data/r.",
            "No weights for grace: none are bundled in … or promoted in ….",
            id="two folders",
        ),
        pytest.param(
            "18.1 images/s, epoch 1/5: put a release into hub/bundled; 3 km/h; accept / defect.",
            "18.1 images/s, epoch 1/5: put a release into hub/bundled; 3 km/h; accept / defect.",
            id="no place of this machine",
        ),
    ],
)
def test_places_of_the_server_are_left_out_of_a_sentence(sentence: str, told: str) -> None:
    assert without_places(sentence) == told


def test_a_caller_s_own_words_come_back_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    told = sentence_of(UnknownModelError("/etc/passwd", ["grace"]))
    assert told == "Unknown model '/etc/passwd'. Available: grace."
    assert caplog.records == []


def test_status_of_a_ledger_that_is_none_tells_the_place_to_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = PathSettings(data=tmp_path / "data", bundled=tmp_path / "bundled")
    paths.data.mkdir()
    (paths.data / "ledger.db").write_text("no database, but long enough to be taken for one" * 30)
    releases.write(paths.bundled / "grace", "grace")
    service = Service(Settings(_env_file=None, paths=paths, serving=ServingSettings()))
    with caplog.at_level(logging.WARNING, "demo"), pytest.raises(gr.Error) as told:
        answer_status(service)
    assert "The ledger … is not an SQLite database" in told.value.message
    assert str(tmp_path) not in told.value.message
    assert str(tmp_path) in caplog.text


def test_what_names_no_place_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    assert sentence_of(LedgerError("The disk is full.")) == "The disk is full."
    assert caplog.records == []
