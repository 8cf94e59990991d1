"""What photos are decoded to before training: the one thing that packing and learning have to agree on."""

from dataclasses import dataclass
from typing import Literal

Picture = Literal["photo", "no_background", "contours"]


@dataclass(frozen=True)
class PackSpec:
    """Size in pixels of the frames that the photos are decoded to, once, and how they fill them.

    ``detail_height``, ``detail_width``: a second, larger frame of the same photos, for patches; None packs none.
    ``pad_beyond``: a photo whose aspect is off the frame's by more than this factor keeps it, in the middle of white;
    all others are squeezed to the frame. 2 pads extreme ones only, 1 all that do not fit, None none. ``picture``: the
    photo itself, the photo with its plain ground made white, or its contours (``tasks.pictures.odd_pictures``).
    """

    frame_height: int
    frame_width: int
    detail_height: int | None = None
    detail_width: int | None = None
    pad_beyond: float | None = None
    picture: Picture = "photo"

    def __str__(self) -> str:
        padding = f", padded beyond {self.pad_beyond:g}" if self.pad_beyond else ""
        detail = f" and {self.detail_height} x {self.detail_width}" if self.detail_width else ""
        return f"{self.frame_height} x {self.frame_width}{detail} ({self.picture}{padding})"
