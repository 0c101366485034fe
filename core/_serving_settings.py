"""Settings of serving; `core.settings` hands them out."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, SecretStr, model_validator

from core._settings_parts import Fraction, Group, Host, PathToBe
from core.images import MEGA, ImageLimits
from core.pitch import PixelPitch

# A side of a picture that is inspected: on fewer no detector has a single place to look at.
_FEWEST_PX: Final = 8


class ServingSettings(Group):
    """How the app serves."""

    host: Host = Field("127.0.0.1", description="Address the app listens on; a host name or IP.")
    port: int = Field(7860, ge=1, le=65535, description="Port the app listens on; a TCP port.")
    score_threshold: Fraction | None = Field(
        None,
        description="Lowest score of a finding that is shown; empty: the release's own; a fraction "
        "in [0, 1].",
    )
    auto_model: str = Field(
        "",
        max_length=40,
        description="Model that answers where none is named; empty: the detector that validated "
        "best; a name.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda:\d{1,2})$",
        description="Where networks run: auto, cpu or cuda:N; a device name.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads of one forward pass on the CPU; empty: as the machine suggests; a "
        "count.",
    )
    runtime: str = Field(
        "auto",
        pattern=r"^(auto|openvino|int8|torch)$",
        description="What runs networks on a CPU: auto starts with torch and goes over to "
        "OpenVINO, openvino waits for it, int8 takes a quantised export where one was made, torch "
        "stays; a name.",
    )
    max_models: int = Field(5, ge=1, le=64, description="Models kept in memory at a time; a count.")
    max_memory_mb: int | None = Field(
        None,
        ge=256,
        le=1_000_000,
        description="Memory of the app above which the models that were not used for longest are "
        "put out of it, the last one never; empty: no such bound; megabytes.",
    )
    max_image_mb: float = Field(
        25, gt=0, le=500, description="Largest image file that is opened; megabytes."
    )
    max_megapixels: float = Field(
        40, gt=0, le=500, description="Largest picture that is decoded; megapixels."
    )
    queue_size: int = Field(
        64, ge=1, le=10_000, description="Requests that may wait before more are refused; a count."
    )
    max_upload_mb: float = Field(
        200, gt=0, le=100_000, description="Largest file of a batch, such as an archive; megabytes."
    )
    max_batch_images: int = Field(
        5000, ge=1, le=1_000_000, description="Pictures that one batch may hold; a count."
    )
    mm_per_px: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Steel that one pixel shows, for sizes in mm; empty: sizes in px; millimetres.",
    )
    mm_per_px_down: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="The same from one row of pixels to the next, where the pixels of a line-scan "
        "camera are not square; empty: as MM_PER_PX; millimetres.",
    )
    tolerances: PathToBe | None = Field(
        None,
        description="File that says up to which size a class may stay on the steel; empty: every "
        "likely defect is one; a path.",
    )
    keep_batches_days: float = Field(
        7,
        gt=0,
        le=3650,
        description="How long a finished batch, or what got a link, can be found again; days.",
    )
    watched_folder: PathToBe | None = Field(
        None, description="Folder whose new pictures Live looks at; empty: none; a path."
    )
    reviewers: str = Field(
        "",
        pattern=r"^[A-Za-z0-9, -]*$",
        description="Users of the Hub who may act on the pages of a Space, separated by commas; "
        "empty: nobody; Hub names.",
    )
    reviewer_password: SecretStr | None = Field(
        None,
        min_length=8,
        description="What a reviewer signs in with where the app is no Space; empty: who sits at "
        "the machine itself may act, nobody else; a secret.",
    )

    @model_validator(mode="after")
    def _one_pitch_is_not_enough(self) -> Self:
        if self.mm_per_px is None and self.mm_per_px_down is not None:
            raise ValueError(
                "ROLLMARK_SERVING__MM_PER_PX_DOWN is set, but ROLLMARK_SERVING__MM_PER_PX is not"
            )
        return self

    @property
    def pitch(self) -> PixelPitch | None:
        """Steel that one pixel shows; None where it is not known."""
        if self.mm_per_px is None:
            return None
        return PixelPitch(self.mm_per_px, self.mm_per_px_down or self.mm_per_px)

    @property
    def image_limits(self) -> ImageLimits:
        """The caps for `core.images.decode`."""
        return ImageLimits(
            max_bytes=int(self.max_image_mb * MEGA),
            max_pixels=int(self.max_megapixels * MEGA),
            min_side_px=_FEWEST_PX,
        )
