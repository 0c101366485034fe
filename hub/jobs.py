"""Retraining on a schedule of Hugging Face Jobs: one scheduled job, written or replaced.

A job's disk is gone when it ends, so the data folder lies on a bucket and the ledger on a server;
SQLite on a mounted bucket is refused. Secrets travel as secrets, never as environment, and the time
limit is the run's own budget with a margin: the Hub's default of 30 minutes would end most runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from core.errors import ConfigError, UnknownModelError
from core.ledger import ledger_address
from core.settings import PREFIX, Settings
from hub.remote import connect, is_offline, mapped, refuse_half_a_name
from models import names

_LABEL: Final = {"rollmark": "retraining"}
_MOUNT: Final = "/data"
_APP: Final = "/home/user/app"  # where a Space's image has its code
_MARGIN_MIN: Final = 30  # to fetch, to evaluate, to publish
_GROUPS: Final = ("hub", "label_studio", "review", "retraining")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scheduled job would be; `secrets` holds values and is not to be shown."""

    schedule: str
    space: str
    bucket: str
    flavor: str
    command: tuple[str, ...]
    timeout_s: int
    env: dict[str, str]
    secrets: dict[str, str]


def plan(
    settings: Settings,
    schedule: str,
    *,
    space: str,
    bucket: str,
    flavor: str,
    models: Sequence[str] = (),
) -> Plan:
    """The job that runs one pass of retraining at every beat of a schedule.

    Args:
        settings: all that was set in groups the run reads goes along.
        schedule: five cron fields, or @daily and its kin; UTC.
        space: NAMESPACE/NAME of the Space whose image the job runs in.
        bucket: NAMESPACE/NAME of the storage bucket with the data folder.
        flavor: the Hub's name of a machine, such as l4x1.
        models: names, each of which gets a pass of its own; none: one pass, for the model that
            `active_learning run` chooses.

    Raises:
        ConfigError: if the ledger is SQLite, the schedule is none, or a name is not NAMESPACE/NAME.
        LedgerError: if the ledger's address is none.
        UnknownModelError: if there is no such model.
    """
    for model in models:
        if model not in names():
            raise UnknownModelError(model, names())
    if not schedule.startswith("@") and len(schedule.split()) != 5:
        raise ConfigError(
            f"The schedule is {schedule!r}; five fields of cron or @daily are needed."
        )
    for what, name in (("Space", space), ("bucket", bucket)):
        refuse_half_a_name(what, name)
    if ledger_address(settings.paths.ledger_url).get_backend_name() == "sqlite":
        raise ConfigError(
            "The ledger is an SQLite file, and a job's disk is gone when it ends: set "
            "ROLLMARK_PATHS__LEDGER_URL to a PostgreSQL server that the job can reach."
        )
    if settings.hub.token is None:
        raise ConfigError("ROLLMARK_HUB__TOKEN is not set: the job could not publish.")
    env = {f"{PREFIX}PATHS__DATA": _MOUNT, f"{PREFIX}PATHS__RUNS": f"{_MOUNT}/runs"}
    secrets = {f"{PREFIX}PATHS__LEDGER_URL": settings.paths.ledger_url}
    passes = max(len(models), 1)
    for group in _GROUPS:
        chosen: BaseModel = getattr(settings, group)
        for field in sorted(chosen.model_fields_set):
            value = getattr(chosen, field)
            name = f"{PREFIX}{group}__{field}".upper()
            if isinstance(value, SecretStr):
                secrets[name] = value.get_secret_value()
            elif value is not None:
                env[name] = str(value)
    return Plan(
        schedule=schedule,
        space=space,
        bucket=bucket,
        flavor=flavor,
        command=("bash", "-c", f"cd {_APP} && {_passes(models)}"),
        timeout_s=int((settings.retraining.time_budget_min + _MARGIN_MIN) * 60 * passes),
        env=env,
        secrets=secrets,
    )


def _passes(models: Sequence[str]) -> str:
    """The shell's words for one pass after the other; it fails if any of them did."""
    runs = [f"python -m active_learning run --json {model}" for model in models]
    if len(runs) < 2:
        return runs[0] if runs else "python -m active_learning run --json"
    return f"{{ {' '.join(f'{run} || failed=1;' for run in runs)} exit ${{failed:-0}}; }}"


def put(wanted: Plan, settings: Settings) -> str:
    """Write the job to the Hub; those that an earlier call wrote are taken away afterwards.

    Returns:
        The new job's id.

    Raises:
        ConfigError: if the Hub is switched off.
        HubError: if the Hub refuses.
        HubUnavailable: if it does not answer.
    """
    from huggingface_hub import Volume

    api, namespace = _open(settings), wanted.space.partition("/")[0]
    with mapped(f"schedule a job of {namespace}"):
        old = api.list_scheduled_jobs(namespace=namespace, labels=_LABEL)
        volume = Volume(type="bucket", source=wanted.bucket, mount_path=_MOUNT)
        made = api.create_scheduled_job(
            image=f"hf.co/spaces/{wanted.space}",
            command=list(wanted.command),
            schedule=wanted.schedule,
            concurrency=False,  # the lease would turn a second one away in any case
            env=dict(wanted.env),
            secrets=dict(wanted.secrets),
            flavor=wanted.flavor,
            timeout=wanted.timeout_s,
            name="rollmark-retraining",
            labels=_LABEL,
            volumes=[volume],
            namespace=namespace,
        )
        for job in old:
            api.delete_scheduled_job(scheduled_job_id=job.id, namespace=namespace)
    return str(made.id)


def remove(namespace: str, settings: Settings) -> int:
    """Take every scheduled retraining job of a namespace away; how many there were.

    Raises:
        ConfigError: if the Hub is switched off.
        HubError: if the Hub refuses.
        HubUnavailable: if it does not answer.
    """
    api = _open(settings)
    with mapped(f"take away the jobs of {namespace}"):
        old = api.list_scheduled_jobs(namespace=namespace, labels=_LABEL)
        for job in old:
            api.delete_scheduled_job(scheduled_job_id=job.id, namespace=namespace)
    return len(old)


def _open(settings: Settings) -> Any:
    if is_offline(settings.hub):
        raise ConfigError("The Hub is switched off: unset ROLLMARK_HUB__OFFLINE to schedule jobs.")
    return connect(settings.hub)
