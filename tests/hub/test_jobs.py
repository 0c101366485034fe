import json
import subprocess

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from core.errors import ConfigError, HubError, LedgerError, UnknownModelError
from core.settings import LabelStudioSettings, RetrainingSettings
from hub.__main__ import app
from hub.jobs import plan, put, remove
from tests.hub.loopback import settings_for

LEDGER = "postgresql+psycopg://mill:s3cret@db.example/rollmark"


@pytest.fixture
def mill(settings):
    """acme's installation with a ledger on a server and Label Studio."""
    return settings.model_copy(
        update={
            "paths": settings.paths.model_copy(update={"ledger_url": LEDGER}),
            "label_studio": LabelStudioSettings(
                url="https://labels.example", token=SecretStr("ls-token")
            ),
            "retraining": RetrainingSettings(time_budget_min=90),
        }
    )


def weekly(settings, **changes):
    fields = {"space": "acme/rollmark", "bucket": "acme/mill-data", "flavor": "l4x1", **changes}
    return plan(settings, "0 2 * * 1", **fields)


def test_the_job_runs_one_pass_in_the_spaces_image_with_the_data_on_the_bucket(hub, mill):
    put(weekly(mill, models=["grace"]), mill)
    [job] = hub.jobs
    spec = job["jobSpec"]
    assert (job["schedule"], job["concurrency"]) == ("0 2 * * 1", False)
    assert (spec["spaceId"], spec["flavor"]) == ("acme/rollmark", "l4x1")
    assert spec["command"][-1].endswith("python -m active_learning run --json grace")
    assert spec["volumes"] == [{"type": "bucket", "source": "acme/mill-data", "mountPath": "/data"}]
    assert spec["environment"]["ROLLMARK_PATHS__DATA"] == "/data"
    assert spec["environment"]["ROLLMARK_LABEL_STUDIO__URL"] == "https://labels.example"


def test_a_misspelt_model_is_told_before_it_fails_every_night(mill):
    with pytest.raises(UnknownModelError, match="'gracie'"):
        weekly(mill, models=["gracie"])


def test_a_schedule_that_is_none_is_told_before_it_is_sent(mill):
    fields = {"space": "acme/rollmark", "bucket": "acme/mill-data", "flavor": "l4x1"}
    with pytest.raises(ConfigError, match=r"The schedule is '0 2 \* \*'; five fields of cron or"):
        plan(mill, "0 2 * *", **fields)
    assert plan(mill, "@daily", **fields).schedule == "@daily"


def test_the_time_limit_is_the_runs_budget_and_half_an_hour(hub, mill):
    put(weekly(mill), mill)
    assert hub.jobs[0]["jobSpec"]["timeoutSeconds"] == (90 + 30) * 60


@pytest.mark.parametrize(("broken", "status"), [("", 0), ("da_yolo", 1), ("grace", 1)])
def test_every_model_that_is_named_gets_a_pass_and_one_that_fails_fails_the_job(
    mill, tmp_path, broken, status
):
    """`active_learning run` takes one model: given two it would refuse, every night."""
    job = weekly(mill, models=["da_yolo", "grace"])
    assert job.timeout_s == 2 * (90 + 30) * 60
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@"\n[ "$5" != "{broken}" ]\n')
    python.chmod(0o755)
    shell, flag, line = job.command
    line = line.replace("cd /home/user/app", f"cd {tmp_path}")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([shell, flag, line], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "-m active_learning run --json da_yolo",
        "-m active_learning run --json grace",
    ]
    assert done.returncode == status


def test_an_address_that_is_none_is_one_sentence(mill):
    paths = mill.paths.model_copy(update={"ledger_url": "the ledger"})
    with pytest.raises(LedgerError, match="is no SQLAlchemy URL"):
        weekly(mill.model_copy(update={"paths": paths}))


def test_secrets_are_sent_as_secrets_and_never_as_environment(hub, mill):
    put(weekly(mill), mill)
    spec = hub.jobs[0]["jobSpec"]
    assert spec["secrets"] == {
        "ROLLMARK_PATHS__LEDGER_URL": LEDGER,
        "ROLLMARK_HUB__TOKEN": "hf_write",
        "ROLLMARK_LABEL_STUDIO__TOKEN": "ls-token",
    }
    for secret in ("hf_write", "ls-token", "s3cret"):
        assert secret not in json.dumps([spec["environment"], spec["command"], spec["labels"]])


def test_scheduling_again_replaces_the_job_and_leaves_others(hub, mill):
    other = {"id": "theirs", "owner": {"id": "1", "name": "acme", "type": "user"}, "status": {}}
    hub.jobs.append({**other, "jobSpec": {"labels": {"app": "else"}}})
    put(weekly(mill), mill)
    newer = put(weekly(mill), mill)
    assert [job["id"] for job in hub.jobs] == ["theirs", newer]
    assert remove("acme", mill) == 1
    assert [job["id"] for job in hub.jobs] == ["theirs"]


def test_a_ledger_on_the_jobs_own_disk_is_refused(settings):
    with pytest.raises(ConfigError, match="a job's disk is gone when it ends"):
        weekly(settings)


def test_a_job_that_could_not_publish_is_refused(hub, mill, tmp_path):
    poor = mill.model_copy(update={"hub": settings_for(hub, tmp_path, token=None).hub})
    with pytest.raises(ConfigError, match="the job could not publish"):
        weekly(poor)
    with pytest.raises(ConfigError, match="The bucket is 'data'; NAMESPACE/NAME is needed"):
        weekly(mill, bucket="data")


def test_a_token_without_the_right_is_one_sentence(hub, mill, tmp_path):
    reader = mill.model_copy(update={"hub": settings_for(hub, tmp_path, token="hf_read").hub})
    with pytest.raises(HubError, match="Cannot schedule a job of acme: the token"):
        put(weekly(mill), reader)


def test_the_command_shows_the_job_without_its_secrets_and_writes_it(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLLMARK_PATHS__LEDGER_URL", LEDGER)
    monkeypatch.setenv("ROLLMARK_HUB__TOKEN", "hf_write")
    monkeypatch.setenv("ROLLMARK_HUB__ENDPOINT", hub.endpoint)
    runner = CliRunner()
    job = ["schedule", "@daily", "--space", "acme/rollmark", "--bucket", "acme/mill-data"]
    shown = runner.invoke(app, [*job, "--dry-run"])
    assert json.loads(shown.output)["secrets"] == [
        "ROLLMARK_HUB__TOKEN",
        "ROLLMARK_PATHS__LEDGER_URL",
    ]
    assert "hf_write" not in shown.output
    assert hub.jobs == []
    assert runner.invoke(app, job).output == "scheduled as job1, at most 270 min a run\n"
    assert runner.invoke(app, ["schedule", "--remove", "acme"]).output.startswith("1 scheduled")
    assert runner.invoke(app, ["schedule"]).exit_code == 2
