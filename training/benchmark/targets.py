"""What was aimed at in accuracy, table by table."""

from __future__ import annotations

from typing import Final

from training.benchmark.sheet import Target

_UNAIDED: Final = ", both from random weights"
_TRAINED_LIKEWISE: Final = ", both with pictures kept in place"
_WIDENED: Final = ", both begun as scale n"


def _at_least(
    words: str, network: str, metric: str, value: float, *, label: str | None = None
) -> Target:
    """A published value, aimed at on the papers' own kind of split."""
    return Target(
        words=words,
        protocol="paper",
        network=network,
        metric=metric,
        label=label,
        at_least=value,
    )


DETECTION: Final = (
    _at_least("GRACE mAP50", "grace-n", "mAP50", 0.759),
    _at_least("GRACE mAP50_95", "grace-n", "mAP50_95", 0.437),
    _at_least("GRACE mAP50, pictures kept in place", "grace-n-in_place", "mAP50", 0.759),
    _at_least("GRACE mAP50_95, pictures kept in place", "grace-n-in_place", "mAP50_95", 0.437),
    _at_least("GRACE s mAP50, begun as scale n", "grace-s-in_place-widened", "mAP50", 0.759),
    _at_least("GRACE s mAP50_95, begun as scale n", "grace-s-in_place-widened", "mAP50_95", 0.437),
    *(
        Target(
            words=words,
            protocol="paper",
            network=network,
            metric="mAP50",
            at_least=0.04,
            over=over,
        )
        for words, network, over in (
            ("DA-YOLO mAP50 over YOLO11", "da_yolo-n", "yolo11-n"),
            (
                "DA-YOLO with YOLO11's loss, pictures kept in place, mAP50 over YOLO11 plainly "
                "trained",
                "da_yolo-n-stock_loss-in_place",
                "yolo11-n",
            ),
            (
                "DA-YOLO with YOLO11's loss, mAP50 over YOLO11" + _TRAINED_LIKEWISE,
                "da_yolo-n-stock_loss-in_place",
                "yolo11-n-in_place",
            ),
        )
    ),
    _at_least("GMS2-YOLO AP50 of crazing", "gms2_yolo-n", "mAP50", 0.683, label="crazing"),
    _at_least(
        "GMS2-YOLO AP50 of crazing, pictures kept in place",
        "gms2_yolo-n-in_place",
        "mAP50",
        0.683,
        label="crazing",
    ),
    *(
        Target(
            words=f"{words} over YOLO11 n plainly trained",
            protocol="leak-free",
            network=network,
            metric="mAP50",
            at_least=0.03,
            over="yolo11-n",
        )
        for words, network in (
            ("GRACE n mAP50, pictures kept in place,", "grace-n-in_place"),
            ("GRACE s mAP50, begun as scale n,", "grace-s-in_place-widened"),
        )
    ),
    *(
        Target(
            words=f"{title} mAP50 not below YOLO11{told}",
            protocol="leak-free",
            network=network,
            metric="mAP50",
            at_least=0.0,
            over=over,
        )
        for title, network, over, told in (
            ("GRACE", "grace-n", "yolo11-n", ""),
            ("GMS2-YOLO", "gms2_yolo-n", "yolo11-n", ""),
            ("DA-YOLO", "da_yolo-n", "yolo11-n", ""),
            ("GRACE", "grace-n-in_place", "yolo11-n-in_place", _TRAINED_LIKEWISE),
            ("GMS2-YOLO", "gms2_yolo-n-in_place", "yolo11-n-in_place", _TRAINED_LIKEWISE),
            (
                "DA-YOLO with YOLO11's loss",
                "da_yolo-n-stock_loss-in_place",
                "yolo11-n-in_place",
                _TRAINED_LIKEWISE,
            ),
            ("GRACE", "grace-n-random", "yolo11-n-random", _UNAIDED),
            ("GMS2-YOLO", "gms2_yolo-n-random", "yolo11-n-random", _UNAIDED),
            (
                "DA-YOLO with YOLO11's loss",
                "da_yolo-n-stock_loss-random",
                "yolo11-n-random",
                _UNAIDED,
            ),
            ("GRACE s", "grace-s", "yolo11-s", _UNAIDED),
            ("GMS2-YOLO s", "gms2_yolo-s", "yolo11-s", _UNAIDED),
            ("DA-YOLO s with YOLO11's loss", "da_yolo-s-stock_loss", "yolo11-s", _UNAIDED),
            ("GRACE s", "grace-s-in_place-widened", "yolo11-s-in_place-widened", _WIDENED),
            ("GMS2-YOLO s", "gms2_yolo-s-in_place-widened", "yolo11-s-in_place-widened", _WIDENED),
            (
                "DA-YOLO s with YOLO11's loss",
                "da_yolo-s-stock_loss-in_place-widened",
                "yolo11-s-in_place-widened",
                _WIDENED,
            ),
        )
    ),
)

SEGMENTATION: Final = (
    _at_least("SME-DeepLabV3+ mIoU", "sme_deeplabv3plus-paper", "mIoU", 0.889),
    *(
        Target(
            words=f"SME-DeepLabV3+ mIoU not below DeepLabV3+ with {encoder}",
            protocol="leak-free",
            network="sme_deeplabv3plus-paper",
            metric="mIoU",
            at_least=0.0,
            over=over,
        )
        for encoder, over in (
            ("MobileNetV2", "deeplabv3plus-mobilenet_v2"),
            ("ResNet-18", "deeplabv3plus-resnet18"),
        )
    ),
)

_STEELNETS: Final = (("light", "light"), ("paper", "as published"))
CLASSIFICATION: Final = (
    *(
        _at_least(
            f"MobileSteelNet, {title}, accuracy", f"mobilesteelnet-{scale}", "accuracy", 0.914
        )
        for scale, title in _STEELNETS
    ),
    *(
        Target(
            words=f"MobileSteelNet, {title}, over standard activations",
            protocol="paper",
            network=f"mobilesteelnet-{scale}",
            metric="accuracy",
            at_least=0.0,
            over="mobilesteelnet.trunk_relu-paper",
        )
        for scale, title in _STEELNETS
    ),
)
