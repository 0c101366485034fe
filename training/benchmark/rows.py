"""A row of an accuracy table: one training run, declared before it is made. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from training.detector_recipe import IN_PLACE
from training.splits import Protocol

if TYPE_CHECKING:
    from training.datasets import Dataset

Table = Literal["detect", "segment", "classify", "balance"]
TABLES: tuple[Table, ...] = get_args(Table)
PROTOCOLS: tuple[Protocol, ...] = ("leak-free", "paper")  # the headline first


@dataclass(frozen=True, slots=True)
class Setting:
    """How much one run of a table may cost; every row of a section shares it."""

    name: str
    image_size: int  # px
    epochs: int
    batch: int  # images
    overrides: Mapping[str, Any] = field(default_factory=dict)  # over every row's recipe


@dataclass(frozen=True, slots=True)
class View:
    """A data set of which only a part may be trained on; its test split is whole.

    `of(dataset, protocol, seed)` makes it; the result has a data set id of its own.
    """

    name: str
    of: Callable[[Dataset, Protocol, int], Dataset]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run: a network on a data set under a protocol, in a setting, with a seed.

    `group` is the table within the page; `against` is the `network` of the baseline that the row is
    compared with in the same setting, "" for none. A `reference` stands beside others of its table
    and is no reason to show it alone.
    """

    group: str
    title: str
    model: str
    scale: str
    data: str
    protocol: Protocol
    setting: Setting
    seed: int
    coco: bool = False  # starts from COCO arrays; else from random weights
    is_unaided: bool = False  # starts from random weights although there are COCO arrays
    is_widened: bool = False  # starts from COCO arrays of a narrower scale, `models._widening`
    balance: str | None = None  # method of `training.balance`; None: the model's own
    loss: str | None = None  # of `training.detector_recipe.LOSSES`; None: as the recipe has it
    in_place: bool = False  # `detector_recipe.IN_PLACE` instead of what the setting has
    view: View | None = None
    against: str = ""
    reference: bool = False

    @property
    def network(self) -> str:
        """What is trained, the same for every seed: `grace-n`, `mobilesteelnet-light-focal`."""
        method = f"-{self.balance}" if self.balance else ""
        loss = f"-{self.loss}_loss" if self.loss not in (None, "paper") else ""
        in_place = "-in_place" if self.in_place else ""
        start = "-random" if self.is_unaided else "-widened" if self.is_widened else ""
        return f"{self.model}-{self.scale}{method}{loss}{in_place}{start}"

    @property
    def section(self) -> tuple[str, str, str, str]:
        """What rows must share to stand in one table; a view stands beside its whole set."""
        return self.group, self.data.partition("@")[0], self.setting.name, self.protocol

    @property
    def id(self) -> str:
        """Name of the run folder and of the record."""
        data = f"{self.data}.{self.view.name}" if self.view else self.data.replace("@", ".")
        size = f"{self.setting.image_size}-e{self.setting.epochs}"
        return f"{data}-{self.network}-{size}-{self.protocol}-s{self.seed}"

    @property
    def overrides(self) -> dict[str, Any]:
        """Values over the recipe of the model."""
        chosen = {"balance": self.balance, "loss": self.loss}
        pictures = {"in_place": IN_PLACE} if self.in_place else {}
        return {**self.setting.overrides, **pictures, **{k: v for k, v in chosen.items() if v}}
