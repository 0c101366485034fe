"""Where and when Rollmark runs: one frozen object read from the environment and `.env`.

Names are `ROLLMARK_<GROUP>__<FIELD>`, for example `ROLLMARK_SERVING__PORT`; the environment wins
over `.env`. Hyper-parameters are not settings: they belong to a model's recipe. Only entry points
call `load_settings`; everyone else is handed the group it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from core._env_file import read_env_file
from core._retraining_settings import RetrainingSettings as RetrainingSettings
from core._serving_settings import ServingSettings as ServingSettings
from core._settings_errors import invalid_value, unknown_name
from core._settings_parts import Fraction, Group, PathToBe
from core.errors import ConfigError

PREFIX: Final = "ROLLMARK_"
# Switches of the test suite, read by the tests alone.
TEST_SWITCHES: Final = frozenset({"ROLLMARK_TEST_DATA", "ROLLMARK_WRITE_SCREENSHOTS"})

_BUNDLED: Final = Path(__file__).resolve().parent.parent / "hub" / "bundled"

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+", max_length=500)]


class PathSettings(Group):
    """Where things lie."""

    data: PathToBe = Field(
        Path("data"), description="Folder of everything Rollmark keeps for you; a path."
    )
    runs: PathToBe = Field(Path("runs"), description="Folder of training runs, one each; a path.")
    bundled: PathToBe = Field(
        _BUNDLED, description="Folder of the releases that come with the code; a path."
    )
    releases: PathToBe = Field(
        default_factory=lambda group: group["data"] / "releases",
        description="Folder of releases promoted on this machine; by default releases in the data "
        "folder; a path.",
    )
    cache: PathToBe = Field(
        default_factory=lambda group: group["data"] / "cache",
        description="Folder of what can be fetched or computed again; by default cache in the data "
        "folder; a path.",
    )
    fetched: PathToBe | None = Field(
        None,
        description="Folder of releases fetched from the Hub; by default hub/NAMESPACE in the "
        "cache folder when a namespace is set; a path.",
    )
    keep: PathToBe | None = Field(
        None,
        description="Folder that outlives this machine's disk, such as a bucket mounted into a "
        "Space: ledger, images and releases are copied there and come back at the next start; "
        "empty: none; a path.",
    )
    ledger_url: str = Field(
        default_factory=lambda group: f"sqlite:///{group['data'] / 'ledger.db'}",
        min_length=1,
        repr=False,  # it may carry a password
        description="Address of the ledger; by default ledger.db in the data folder; an "
        "SQLAlchemy URL.",
    )

    @property
    def datasets(self) -> Path:
        """Folder of the prepared data sets."""
        return self.data / "datasets"

    @property
    def images(self) -> Path:
        """Root of the content-addressed image store."""
        return self.data / "images"


class HubSettings(Group):
    """The Hugging Face Hub."""

    namespace: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="User or organisation whose model repositories are read and published; empty: "
        "none; a Hub name.",
    )
    token: SecretStr | None = Field(
        None, description="Access token with write permission, for publishing; a secret."
    )
    offline: bool = Field(
        False,
        description="Never ask the Hub; what was fetched before stays in use; true or false.",
    )
    endpoint: HttpUrl | None = Field(
        None,
        description="Address of the Hub, for a mirror or one of your own; empty: huggingface.co, "
        "or what HF_ENDPOINT says; an http or https URL.",
    )
    check_min: float = Field(
        1,
        ge=1,
        le=1440,
        description="Time between two looks of the app at what the Hub has live; minutes.",
    )


class LabelStudioSettings(Group):
    """The labelling tool."""

    url: HttpUrl = Field(
        "http://127.0.0.1:8080", description="Address of Label Studio; an http or https URL."
    )
    token: SecretStr | None = Field(
        None, description="Access token of the Label Studio user; a secret."
    )
    # Label Studio keeps a title without the spaces around it; one with them would be made anew
    # each time that it is looked for.
    project: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "Rollmark",
        min_length=1,
        max_length=50,
        description="Project that receives images, created if it is missing; a title or a number.",
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Value of the secret header of its webhooks; empty: none; a secret."
    )
    poll_min: float = Field(
        5, gt=0, le=1440, description="Time between two fetches of answers by the app; minutes."
    )


class ReviewSettings(Group):
    """When an image asks for a person."""

    review_threshold: Fraction | None = Field(
        None,
        description="Uncertainty or disagreement from which on an image asks for a person; empty: "
        "each release's own, chosen on validation, and 0.5 where there is none; a fraction in "
        "[0, 1].",
    )
    queue_unsure: bool = Field(
        True,
        description="Put every image that asks for a person into the review queue, off for a "
        "public demo; true or false.",
    )
    budget: int = Field(
        50, ge=1, le=10_000, description="Images sent for review in one pass; a count."
    )
    random_share: Fraction = Field(
        0.1,
        description="Share of the budget drawn at random, so that sure mistakes are seen too; "
        "where only detectors have looked, all of it is; a fraction in [0, 1].",
    )


class Settings(BaseSettings):
    """Everything that differs between two installations."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",  # misspelt names are looked for, and explained, in load_settings
        hide_input_in_errors=True,
    )

    paths: PathSettings = Field(default_factory=PathSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    hub: HubSettings = Field(default_factory=HubSettings)
    label_studio: LabelStudioSettings = Field(default_factory=LabelStudioSettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    retraining: RetrainingSettings = Field(default_factory=RetrainingSettings)

    @model_validator(mode="after")
    def _place_fetched(self) -> Self:
        """A namespace's releases lie in a folder of its own: another one finds none of them."""
        if self.hub.namespace is not None and self.paths.fetched is None:
            fetched = self.paths.cache / "hub" / self.hub.namespace
            paths = self.paths.model_copy(update={"fetched": fetched})
            object.__setattr__(self, "paths", paths)  # frozen from the end of this method on
        return self


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment and `.env`.

    Args:
        env_file: file of `NAME=value` lines, which need not exist; None: the environment alone.

    Raises:
        ConfigError: if the file or a line of it cannot be read, a ROLLMARK_ name is misspelt, or
            a value is not what the setting allows; the message names the line's number, or the
            variable, and the value unless it is a secret.
    """
    given = _given(env_file)
    known = dict(known_variables())
    for name in given:
        if name not in known:
            raise ConfigError(unknown_name(name, known, prefix=PREFIX))
    try:
        return Settings(_env_file=env_file)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        name = PREFIX + "__".join(str(part) for part in first["loc"][:2]).upper()
        raise ConfigError(invalid_value(name, given, known, first)) from exc


def known_variables() -> Iterator[tuple[str, FieldInfo]]:
    """Every variable that is read, `ROLLMARK_SERVING__PORT` and so on, with its definition."""
    for group_name, group in Settings.model_fields.items():
        kind = group.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for field_name, field in kind.model_fields.items():
                yield f"{PREFIX}{group_name}__{field_name}".upper(), field


def _given(env_file: Path | None) -> dict[str, str]:
    """The ROLLMARK_ variables of the file and the environment, upper case."""
    from_file = read_env_file(env_file) if env_file is not None else {}
    merged = {**_upper(from_file), **_upper(os.environ)}
    return {
        name: value
        for name, value in merged.items()
        if name.startswith(PREFIX) and name not in TEST_SWITCHES
    }


def _upper(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name.upper(): value or "" for name, value in variables.items()}
