"""Settings: names, bounds, sentences, and no secret anywhere."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import ConfigError
from core.images import KEPT
from core.settings import ServingSettings, known_variables, load_settings

SECRET = "hf_topsecretvalue"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("ROLLMARK_"):
            monkeypatch.delenv(name)


def load(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(None)


def test_defaults_serve_on_this_machine_alone():
    settings = load_settings(None)
    assert (settings.serving.host, settings.serving.port) == ("127.0.0.1", 7860)
    assert settings.serving.score_threshold is None
    assert settings.review.review_threshold is None
    assert settings.paths.bundled == Path(__file__).resolve().parents[2] / "hub" / "bundled"


def test_everything_kept_follows_the_data_folder(monkeypatch):
    paths = load(monkeypatch, ROLLMARK_PATHS__DATA="/mnt/steel").paths
    assert paths.releases == Path("/mnt/steel/releases")
    assert paths.cache == Path("/mnt/steel/cache")
    assert paths.datasets == Path("/mnt/steel/datasets")
    assert paths.images == Path("/mnt/steel/images")
    assert paths.ledger_url == "sqlite:////mnt/steel/ledger.db"


def test_home_sign_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/mill")
    assert load(monkeypatch, ROLLMARK_PATHS__DATA="~/steel").paths.data == Path("/home/mill/steel")


def test_environment_wins_over_the_file(monkeypatch, tmp_path):
    env = tmp_path / ".env"
    env.write_text("OTHER=1\nROLLMARK_SERVING__PORT=8000\nROLLMARK_SERVING__THREADS=2\n")
    monkeypatch.setenv("ROLLMARK_SERVING__PORT", "9000")
    serving = load_settings(env).serving
    assert (serving.port, serving.threads) == (9000, 2)


def test_a_file_that_is_not_there_is_no_error(tmp_path):
    assert load_settings(tmp_path / ".env").serving.port == 7860


def test_a_file_of_an_old_editor_is_told_what_to_save_it_as(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes(b"ROLLMARK_SERVING__PORT=7999 # Gr\xfc\xdfe\n")  # Latin-1
    with pytest.raises(ConfigError, match=r"\.env is not UTF-8 text at byte 32: save it as UTF-8"):
        load_settings(file)
    file.write_text("ROLLMARK_SERVING__PORT=7999 # Grüße\n", "utf-8-sig")  # with a byte-order mark
    assert load_settings(file).serving.port == 7999


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'ROLLMARK_HUB__TOKEN="{SECRET}\nROLLMARK_SERVING__PORT=7999\n', 1),
        (f"A=1\r\n\r\n# token\r\n\r\nROLLMARK_HUB__TOKEN='{SECRET}", 5),
        (f"A='two\nlines'\nROLLMARK_HUB__TOKEN {SECRET}\n", 3),
        (f"={SECRET}\n", 1),
    ],
    ids=["quote left open", "after empty lines", "after a long value", "no name"],
)
def test_a_line_that_cannot_be_read_is_told_by_its_number_alone(tmp_path, text, line):
    file = tmp_path / ".env"
    file.write_text(text, newline="")
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert str(caught.value) == (
        f"Line {line} of {file} cannot be read: write NAME=value, with its quotes closed."
    )
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_comments_empty_lines_and_quotes_are_read(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# ours\n\n  \nexport ROLLMARK_SERVING__PORT='7999' # a port\n"
        'ROLLMARK_HUB__NAMESPACE="mill"\nOTHER="${ROLLMARK_HUB__NAMESPACE}\ntwo"\nALONE\n\n'
    )
    settings = load_settings(file)
    assert (settings.serving.port, settings.hub.namespace) == (7999, "mill")


def test_an_empty_value_is_the_default(monkeypatch):
    assert load(monkeypatch, ROLLMARK_SERVING__SCORE_THRESHOLD="").serving.score_threshold is None


def test_a_project_s_title_has_no_spaces_around_it_as_label_studio_keeps_it(monkeypatch):
    monkeypatch.setenv("ROLLMARK_LABEL_STUDIO__PROJECT", " Mill A ")
    assert load_settings(None).label_studio.project == "Mill A"
    monkeypatch.setenv("ROLLMARK_LABEL_STUDIO__PROJECT", "  ")
    with pytest.raises(ConfigError, match="ROLLMARK_LABEL_STUDIO__PROJECT"):
        load_settings(None)


def test_image_limits_are_in_bytes_and_pixels(monkeypatch):
    settings = load(
        monkeypatch, ROLLMARK_SERVING__MAX_IMAGE_MB="1.5", ROLLMARK_SERVING__MAX_MEGAPIXELS="2"
    )
    limits = settings.serving.image_limits
    assert (limits.max_bytes, limits.max_pixels) == (1_500_000, 2_000_000)
    assert limits.min_side_px == 8


def test_whatever_the_settings_let_in_can_be_opened_again_later():
    widest = ServingSettings(max_image_mb=500, max_megapixels=500).image_limits
    assert (KEPT.max_bytes, KEPT.max_pixels) == (widest.max_bytes, widest.max_pixels)
    with pytest.raises(ValidationError):
        ServingSettings(max_image_mb=500.1)
    with pytest.raises(ValidationError):
        ServingSettings(max_megapixels=500.1)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ROLLMARK_SCORE_TRESHOLD", "ROLLMARK_SERVING__SCORE_THRESHOLD"),
        ("ROLLMARK_SERVING_PORT", "ROLLMARK_SERVING__PORT"),
        ("ROLLMARK_PORT", "ROLLMARK_SERVING__PORT"),
        ("ROLLMARK_LABELSTUDIO__URL", "ROLLMARK_LABEL_STUDIO__URL"),
        ("rollmark_hub__tokn", "ROLLMARK_HUB__TOKEN"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_misspelt_name_stops_the_start(monkeypatch, tmp_path, where, name, meant):
    env = tmp_path / ".env"
    if where == "environment":
        monkeypatch.setenv(name, "1")
    else:
        env.write_text(f"{name}=1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(env)
    assert str(caught.value) == f"Unknown setting {name.upper()}. Did you mean {meant}?"


def test_a_name_like_no_other_is_answered_with_all_there_are(monkeypatch):
    with pytest.raises(ConfigError, match=r"Unknown setting ROLLMARK_Q\. Known are ROLLMARK_PATHS"):
        load(monkeypatch, ROLLMARK_Q="1")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ROLLMARK_SERVING__PORT", "99999", "at least 1, at most 65535"),
        (
            "ROLLMARK_SERVING__PORT",
            "http",
            "it must be a whole number, at least 1, at most 65535. Port",
        ),
        ("ROLLMARK_PATHS__DATA", "~nobody-here/steel", "but this machine knows no such home"),
        (
            "ROLLMARK_RETRAINING__GOLDEN",
            "~nobody-here/g.txt",
            "but this machine knows no such home",
        ),
        ("ROLLMARK_SERVING__SCORE_THRESHOLD", "1.5", "fraction in"),
        ("ROLLMARK_SERVING__DEVICE", "gpu", "auto, cpu or cuda:N"),
        ("ROLLMARK_REVIEW__REVIEW_THRESHOLD", "-0.1", "fraction in"),
        ("ROLLMARK_LABEL_STUDIO__URL", "localhost:8080", "an http or https URL"),
        ("ROLLMARK_HUB__OFFLINE", "perhaps", "true or false"),
        ("ROLLMARK_RETRAINING__TIME_BUDGET_MIN", "0", "more than 0, at most 43200"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(monkeypatch, name, value, says):
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, **{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is '{value}', but ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("REVIEW__REVIEW_THRESHOLD", "2", "it must be at least 0, at most 1"),
        ("REVIEW__REVIEW_THRESHOLD", "high", "it must be a number, at least 0, at most 1"),
        ("SERVING__MAX_IMAGE_MB", "0", "it must be more than 0, at most 500"),
        ("SERVING__THREADS", "1.5", "it must be a whole number, at least 1, at most 256"),
        ("SERVING__RUNTIME", "onnx", "it must be auto, openvino, int8 or torch"),
        ("SERVING__DEVICE", "gpu", "it must be a device name"),
        ("SERVING__REVIEWERS", "jörg", "it must be Hub names"),
        ("HUB__NAMESPACE", "a mill", "it must be a Hub name"),
        ("HUB__ENDPOINT", "hub", "it must be an http or https URL"),
        ("HUB__OFFLINE", "perhaps", "it must be true or false"),
        ("SERVING__AUTO_MODEL", "m" * 41, "it must have at most 40 characters"),
    ],
)
def test_what_would_be_right_is_said_in_words(monkeypatch, name, value, must):
    name = f"ROLLMARK_{name}"
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, **{name: value})
    assert str(caught.value) == (
        f"{name} is {value!r}, but {must}. {dict(known_variables())[name].description}"
    )


def test_a_short_password_is_counted_in_characters_and_not_shown(monkeypatch):
    with pytest.raises(ConfigError, match="it must have at least 8 characters") as caught:
        load(monkeypatch, ROLLMARK_SERVING__REVIEWER_PASSWORD="quarto")
    assert str(caught.value).startswith("ROLLMARK_SERVING__REVIEWER_PASSWORD is set, but it must")
    assert "quarto" not in f"{caught.value} {caught.value.__cause__}"


def test_of_a_long_wrong_value_only_the_beginning_is_repeated(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, ROLLMARK_LABEL_STUDIO__PROJECT="x" * 600)
    assert f"is '{'x' * 80}' …, but it must have at most 50 characters." in str(caught.value)


def test_the_pitch_down_alone_is_told_by_the_names_that_people_set(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, ROLLMARK_SERVING__MM_PER_PX_DOWN="0.2")
    assert str(caught.value) == (
        "ROLLMARK_SERVING__MM_PER_PX_DOWN is set, but ROLLMARK_SERVING__MM_PER_PX is not."
    )


def test_settings_cannot_be_changed():
    settings = load_settings(None)
    with pytest.raises(ValueError, match="frozen"):
        settings.serving.port = 1


def test_secrets_are_nowhere_to_be_seen(monkeypatch):
    settings = load(
        monkeypatch,
        ROLLMARK_HUB__TOKEN=SECRET,
        ROLLMARK_LABEL_STUDIO__TOKEN=SECRET,
        ROLLMARK_PATHS__LEDGER_URL=f"postgresql://mill:{SECRET}@db/rollmark",
    )
    assert settings.hub.token.get_secret_value() == SECRET
    for text in (repr(settings), str(settings), settings.model_dump_json(exclude={"paths"})):
        assert SECRET not in text


def test_a_failure_beside_a_secret_does_not_show_it(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, ROLLMARK_HUB__TOKEN=SECRET, ROLLMARK_HUB__OFFLINE="perhaps")
    whole = "".join(traceback.format_exception(caught.value))
    assert "ROLLMARK_HUB__OFFLINE" in whole
    assert SECRET not in whole


def test_switches_of_the_test_suite_are_not_settings(monkeypatch):
    load(monkeypatch, ROLLMARK_TEST_DATA="/data", ROLLMARK_WRITE_SCREENSHOTS="1")


@pytest.mark.parametrize(("name", "field"), list(known_variables()))
def test_every_setting_says_what_it_is_and_ends_in_its_unit(name, field):
    assert field.description
    unit = field.description.rpartition("; ")[2]
    assert unit.endswith(".")
    assert 3 < len(unit) < 30, f"{name}: {field.description}"


def test_the_names_the_contract_fixes_exist():
    assert {
        "ROLLMARK_PATHS__LEDGER_URL",
        "ROLLMARK_PATHS__DATA",
        "ROLLMARK_LABEL_STUDIO__URL",
        "ROLLMARK_LABEL_STUDIO__TOKEN",
        "ROLLMARK_LABEL_STUDIO__PROJECT",
        "ROLLMARK_HUB__NAMESPACE",
    } <= dict(known_variables()).keys()
