"""The plans: which rows each accuracy table has, in the order in which they are worth running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from core.errors import ConfigError
from training import balance
from training.benchmark.rows import PROTOCOLS, TABLES, Row, Setting, Table
from training.benchmark.views import FEW_LABELS
from training.splits import Protocol

_ZOOMED = {"in_place": 0.0}  # zooms and shifts to the last, as published work has it
_AVERAGED = {"optimizer": "AdamW", "lr0": 2e-3, "weight_decay": 0.01, "ema": 0.99, **_ZOOMED}
SETTINGS: Mapping[Table, tuple[Setting, ...]] = {
    "detect": (
        # Twice the epochs, with our augmentation alone.
        Setting("long", 320, 80, 16, _ZOOMED),
        Setting("full", 320, 40, 16, _ZOOMED),
        Setting("small", 160, 24, 16, _ZOOMED),
        Setting("quick", 64, 1, 8, _ZOOMED),
    ),
    "segment": (
        Setting("full", 320, 60, 16, _ZOOMED),
        # For longer, by AdamW and averaged weights, as the bundled weights went on.
        Setting("middle", 160, 24, 8, _AVERAGED),
        Setting("small", 96, 8, 16, _ZOOMED),
        Setting("quick", 32, 1, 4, _ZOOMED),
    ),
    # The paper's recipe, and one of 360 steps that is not ended by the noise of 90 pictures.
    "classify": (
        Setting("full", 224, 200, 32),
        Setting("small", 96, 40, 10, {"patience": None}),
        Setting("quick", 32, 1, 8),
    ),
    "balance": (
        Setting("full", 128, 60, 32, {"patience": None}),
        Setting("small", 64, 12, 16, {"patience": None}),
        Setting("quick", 32, 1, 8),
    ),
}
# GC10-DET's pictures are 2048 px wide: at 320 px a punching hole would be a few of them.
LARGE_IMAGES = {"gc10-det": 2}  # times the setting's image size
DATA: Mapping[Table, tuple[str, ...]] = {
    "detect": ("neu-det", "gc10-det"),
    "segment": ("neu-seg",),
    "classify": ("neu-cls",),
    "balance": ("x-sdd", "neu-det"),
}
LONG_TAIL = "neu-det@two-rare"  # of crazing and scratches a tenth of the training images is left
OPTIONAL_DATA = frozenset({"gc10-det"})  # run when asked for: not everyone has its images
SEEDS: Mapping[Table, tuple[int, ...]] = {
    "detect": (0,),
    "segment": (0,),
    "classify": (0, 1, 2, 3, 4),
    "balance": (0, 1, 2, 3, 4),
}

PAPERS = (("grace", "GRACE"), ("gms2_yolo", "GMS2-YOLO"), ("da_yolo", "DA-YOLO"))
# The papers' networks without a part of their training that is suspected of costing accuracy here.
_OUR_RECIPES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("grace", "GRACE, images drawn alike", {"balance": "none"}),
    ("da_yolo", "DA-YOLO, YOLO11's loss", {"loss": "stock"}),
)
# The same with our augmentation, which in the end leaves pictures where they are.
_IN_PLACE: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("yolo11", "YOLO11", {}),
    ("grace", "GRACE", {}),
    ("grace", "GRACE, images drawn alike", {"balance": "none"}),
    ("gms2_yolo", "GMS2-YOLO", {}),
    ("da_yolo", "DA-YOLO, YOLO11's loss", {"loss": "stock"}),
)
# COCO arrays fit the less of a network the more of it a paper has made anew: without them all begin
# alike.
_UNAIDED: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("yolo11", "YOLO11", {}),
    ("grace", "GRACE", {}),
    ("gms2_yolo", "GMS2-YOLO", {}),
    ("da_yolo", "DA-YOLO, YOLO11's loss", {"loss": "stock"}),
)
_DETECTOR_PARTS = (
    ("grace.lite_fen", "YOLO11 + Lite-FEN"),
    ("grace.dscbsm", "YOLO11 + DS-CBSM++"),
    ("gms2_yolo.ghgnet", "YOLO11 + GHGNet"),
    ("gms2_yolo.msnet", "YOLO11 + MSNet"),
    ("gms2_yolo.sepbn", "YOLO11 + separate-BN head"),
    ("gms2_yolo.wiou", "YOLO11 + Wise-IoU"),
    ("da_yolo.3dam", "YOLO11 + 3DAM"),
    ("da_yolo.amfem", "YOLO11 + AMFEM"),
    ("da_yolo.iaj", "YOLO11 + IAJ loss"),
    ("da_yolo.no_iaj", "YOLO11 + 3DAM + AMFEM"),
)
# What short runs of the product take: its loss, and pictures left in place in the end.
_OUR_SEGMENTER = "as our short runs: border F1 in the loss, pictures kept in place"
_SEGMENTERS = (  # group, model, scale, title
    ("networks", "deeplabv3plus", "mobilenet_v2", "DeepLabV3+, MobileNetV2"),
    ("networks", "deeplabv3plus", "resnet18", "DeepLabV3+, ResNet-18"),
    ("networks", "sme_deeplabv3plus", "paper", "SME-DeepLabV3+ (MSAA + ELA)"),
    ("networks", "sme_deeplabv3plus.aspp", "paper", "StarNet + ASPP"),
    ("networks", "sme_deeplabv3plus.msaa", "paper", "StarNet + MSAA"),
    ("networks", "sme_deeplabv3plus.ela", "paper", "StarNet + ELA"),
    ("variants", "sme_deeplabv3plus", "os16", "stage 4 at stride 16"),
    ("variants", "sme_deeplabv3plus", "multiscale", "three real scales into MSAA"),
    ("variants", "sme_deeplabv3plus.border", "paper", "border F1 in the loss, for thin scratches"),
    ("variants", "sme_deeplabv3plus", "paper", _OUR_SEGMENTER),
    ("losses", "sme_deeplabv3plus.ce", "paper", "CE"),
    ("losses", "sme_deeplabv3plus.ce_focal", "paper", "CE + focal"),
    ("losses", "sme_deeplabv3plus.ce_dice", "paper", "CE + Dice"),
    ("losses", "sme_deeplabv3plus.focal_dice", "paper", "focal + Dice"),
)
_CLASSIFIERS = (  # model, scale, title; the last two cost as much as all others together
    ("mobilesteelnet", "light", "MobileSteelNet, light"),
    ("mobilesteelnet.trunk_relu", "paper", "the same trunk, standard activations"),
    ("mobilesteelnet.trunk", "paper", "MobileNetV1 as the paper wired it"),
    ("mobilenet_v1", "standard", "MobileNetV1 (13 modules, stride 32)"),
    ("mobilenet_v2", "standard", "MobileNetV2"),
    ("mobilesteelnet.ciema", "paper", "as wired + CIEMA"),
    ("resnet50", "standard", "ResNet-50"),
    ("mobilesteelnet.msff", "paper", "as wired + MSFF"),
    ("mobilesteelnet", "paper", "MobileSteelNet, as published"),
)
_COSTLY = frozenset({("mobilesteelnet.msff", "paper"), ("mobilesteelnet", "paper")})


def plan(
    table: Table,
    *,
    setting: str,
    data: Sequence[str] = (),
    protocols: Sequence[Protocol] = (),
    seeds: Sequence[int] = (),
) -> tuple[Row, ...]:
    """The rows of a table in one setting, the most telling first; empty choices mean the usual.

    Raises:
        ConfigError: if there is no such table, setting or data set, or a protocol twice.
    """
    if table not in TABLES:
        raise ConfigError(f"Unknown table {table!r}. Available: {', '.join(TABLES)}.")
    settings = {s.name: s for s in SETTINGS[table]}
    if setting not in settings:
        raise ConfigError(f"Unknown setting {setting!r}. Available: {', '.join(settings)}.")
    unknown = [name for name in data if name not in DATA[table]]
    if unknown:
        raise ConfigError(
            f"Table {table} has no data set {unknown[0]!r}. Available: {', '.join(DATA[table])}."
        )
    chosen = tuple(data) or tuple(d for d in DATA[table] if d not in OPTIONAL_DATA)
    usual: tuple[Protocol, ...] = PROTOCOLS if table != "balance" else ("leak-free",)
    make = {
        "detect": _detect,
        "segment": _segment,
        "classify": _classify,
        "balance": _balance,
    }[table]
    rows: list[Row] = []
    for protocol in tuple(protocols) or usual:
        for name in chosen:
            rows += make(name, protocol, settings[setting], tuple(seeds) or SEEDS[table])
    return tuple(rows)


def select(rows: Iterable[Row], patterns: Sequence[str]) -> tuple[Row, ...]:
    """The rows whose id or network matches one of the shell patterns; all without a pattern.

    Raises:
        ConfigError: if a pattern matches nothing; the message lists the networks.
    """
    rows = tuple(rows)
    if not patterns:
        return rows
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in rows):
            known = ", ".join(dict.fromkeys(row.network for row in rows))
            raise ConfigError(f"No row is called {pattern!r}. Available: {known}.")
    return tuple(row for row in rows if any(_matches(row, pattern) for pattern in patterns))


def _matches(row: Row, pattern: str) -> bool:
    return fnmatchcase(row.id, pattern) or fnmatchcase(row.network, pattern)


def _detect(data: str, protocol: Protocol, setting: Setting, seeds: Sequence[int]) -> Iterator[Row]:
    size = setting.image_size * LARGE_IMAGES.get(data, 1)
    setting = Setting(setting.name, size, setting.epochs, setting.batch, setting.overrides)

    def rows(
        group: str, model: str, scale: str, title: str, against: str, **recipe: str
    ) -> Iterator[Row]:
        for seed in seeds:
            yield Row(
                group=group,
                title=f"{title}, {scale}",
                model=model,
                scale=scale,
                data=data,
                protocol=protocol,
                setting=setting,
                seed=seed,
                # COCO arrays are at hand for n only.
                coco=group == "widened" or (scale == "n" and group != "unaided"),
                is_unaided=group == "unaided",
                is_widened=group == "widened",
                balance=recipe.get("balance"),
                loss=recipe.get("loss", "paper"),  # in short runs, too: the row is the paper's
                in_place=group in ("in-place", "long", "widened"),
                against=against,
            )

    if setting.name == "long":
        for model, title, recipe in _IN_PLACE:
            against = "yolo11-n-in_place" if model != "yolo11" else ""
            yield from rows("long", model, "n", title, against, **recipe)
        return
    yield from rows("networks", "yolo11", "n", "YOLO11", "")
    for model, title in PAPERS:
        yield from rows("networks", model, "n", title, "yolo11-n")
    if setting.name != "quick":
        for model, title, recipe in _IN_PLACE:
            yield from rows("in-place", model, "n", title, "yolo11-n", **recipe)
    if setting.name == "full":
        for model, title, recipe in _OUR_RECIPES:
            yield from rows("recipes", model, "n", title, "yolo11-n", **recipe)
    if setting.name == "small":
        for model, title in _DETECTOR_PARTS:
            yield from rows("parts", model, "n", title, "yolo11-n")
        for model, title, recipe in _UNAIDED:
            against = "yolo11-n-random" if model != "yolo11" else ""
            yield from rows("unaided", model, "n", title, against, **recipe)
    if setting.name != "quick":
        yield from rows("scale-s", "yolo11", "s", "YOLO11", "")
        for model, title in PAPERS:
            yield from rows("scale-s", model, "s", title, "yolo11-s")
        model, title, recipe = _UNAIDED[-1]  # without its loss, which short runs cannot bear
        yield from rows("scale-s", model, "s", title, "yolo11-s", **recipe)
        for model, title, recipe in _UNAIDED:  # the same four, now aided
            stock = "yolo11-s-in_place-widened" if model != "yolo11" else "yolo11-n-in_place"
            yield from rows("widened", model, "s", title, stock, **recipe)


def _segment(
    data: str, protocol: Protocol, setting: Setting, seeds: Sequence[int]
) -> Iterator[Row]:
    # Longer runs are for the network and the stock ones beside it, which come first.
    compared = _SEGMENTERS[:3] if setting.name == "middle" else _SEGMENTERS
    for group, model, scale, title in compared:
        is_ours = title == _OUR_SEGMENTER
        against = "deeplabv3plus-mobilenet_v2"
        if group != "networks":
            against = "sme_deeplabv3plus-paper"
        for seed in seeds:
            yield Row(
                group=group,
                title=title,
                model=model,
                scale=scale,
                data=data,
                protocol=protocol,
                setting=setting,
                seed=seed,
                # In short runs, too: a row's loss is its network's own.
                loss="border" if is_ours else "paper",
                in_place=is_ours,
                against=against if model != "deeplabv3plus" else "",
            )


def _classify(
    data: str, protocol: Protocol, setting: Setting, seeds: Sequence[int]
) -> Iterator[Row]:
    for costly in (False, True):
        for seed in seeds:
            for model, scale, title in _CLASSIFIERS:
                if ((model, scale) in _COSTLY) is costly:
                    yield Row(
                        group="networks",
                        title=title,
                        model=model,
                        scale=scale,
                        data=data,
                        protocol=protocol,
                        setting=setting,
                        seed=seed,
                        view=FEW_LABELS if protocol == "leak-free" else None,
                        against="mobilesteelnet.trunk_relu-paper" if "steelnet" in model else "",
                    )


def _balance(
    data: str, protocol: Protocol, setting: Setting, seeds: Sequence[int]
) -> Iterator[Row]:
    if data == "neu-det":
        yield from _long_tail(data, protocol, setting.name)
        return
    for seed in seeds:
        for method in balance.methods_for("classify"):
            if method != "paper":  # for this network the same as none
                yield Row(
                    group="methods",
                    title=method,
                    model="mobilesteelnet",
                    scale="light",
                    data=data,
                    protocol=protocol,
                    setting=setting,
                    seed=seed,
                    balance=method,
                    against="mobilesteelnet-light-none",
                )


def _long_tail(data: str, protocol: Protocol, name: str) -> Iterator[Row]:
    """Detectors on a training split of which two classes are cut to a tenth; one seed."""
    setting = next(s for s in SETTINGS["detect"] if s.name == name)
    methods = [None, *(m for m in balance.methods_for("detect") if m != "paper")]
    for method in methods:
        yield Row(
            group="long-tail",
            title=method or "all images, no method",
            model="yolo11",
            scale="n",
            data=LONG_TAIL if method else data,
            protocol=protocol,
            setting=setting,
            seed=SEEDS["detect"][0],
            coco=True,
            balance=method,
            against="yolo11-n-none" if method else "",
            reference=method is None,
        )
