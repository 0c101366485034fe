"""Log lines of entry points: ours from INFO, others from WARNING, none with a secret."""

from __future__ import annotations

import logging
import threading

import pytest
from pydantic import SecretStr

from core.logs import MASK, SecretFormatter, set_up_logging
from core.settings import HubSettings, LabelStudioSettings, Settings

pytestmark = pytest.mark.usefixtures("logging_as_before")


@pytest.fixture
def settings():
    return Settings(
        hub=HubSettings(token=SecretStr("shelf-key-1")),
        label_studio=LabelStudioSettings(token=SecretStr("mill pass phrase")),
    )


@pytest.mark.parametrize("style", ["plain", "rich"])
def test_a_secret_of_the_settings_is_masked_even_in_a_traceback(settings, style, capsys):
    set_up_logging(settings, style=style)
    try:
        raise ValueError("refused: shelf-key-1")
    except ValueError:
        logging.getLogger("hub.publish").exception("with %s", "mill pass phrase")
    printed = capsys.readouterr().err
    assert "shelf-key-1" not in printed
    assert "mill pass phrase" not in printed
    assert printed.count(MASK) == 3  # the message, the raising line, the error
    assert "ValueError: refused" in printed


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("token hf_AbCdEfGh12345 used", f"token {MASK} used"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJpZCI6MX0.c2ln-x_y", MASK),
        ("postgresql://mill:pass@db/x", f"postgresql://{MASK}@db/x"),
        (
            "postgresql://me@db/x?password=pass&port=1",
            f"postgresql://me@db/x?password={MASK}&port=1",
        ),
        ("Authorization: Bearer abcdef", f"Authorization: Bearer {MASK}"),
        ("'Authorization': 'Token 0123456789abcdef0123'", f"'Authorization': 'Token {MASK}'"),
        ("Token classification is not a secret", "Token classification is not a secret"),
        ("http://127.0.0.1:7860/a@b", "http://127.0.0.1:7860/a@b"),
        ("shelf 12 scratches 0.93", "shelf 12 scratches 0.93"),
    ],
)
def test_what_looks_like_a_token_is_masked_and_nothing_else(text, masked):
    formatter = SecretFormatter(logging.Formatter(), frozenset())
    assert formatter.mask(text) == masked


def test_a_secret_within_a_longer_one_leaves_no_rest():
    formatter = SecretFormatter(logging.Formatter(), frozenset({"steel", "steel-works"}))
    assert formatter.mask("steel-works") == MASK


def test_our_rooms_speak_from_info_and_libraries_from_warning(capsys):
    set_up_logging(style="plain")
    logging.getLogger("demo.service").info("model loaded")
    logging.getLogger("httpx").info("GET with headers")
    logging.getLogger("httpx").warning("slow answer")
    printed = capsys.readouterr().err
    assert "INFO    demo.service: model loaded" in printed
    assert "GET with headers" not in printed
    assert "slow answer" in printed


def test_setting_up_twice_prints_a_line_once(capsys):
    set_up_logging(style="plain")
    set_up_logging(style="plain")
    logging.getLogger("core").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_a_thread_that_fails_is_logged_with_its_name(capsys):
    set_up_logging(style="plain")

    def fail():
        raise RuntimeError("disk is gone")

    thread = threading.Thread(target=fail, name="watcher")
    thread.start()
    thread.join()
    printed = capsys.readouterr().err
    assert "watcher failed" in printed
    assert "RuntimeError: disk is gone" in printed
