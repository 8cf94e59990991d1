"""What photos are decoded to before training: the one thing that packing and learning have to agree on."""

from dataclasses import dataclass
from typing import Any, Literal

Picture = Literal["photo", "no_background", "contours"]
# Fields that came later: at these values a recipe is what it was without them, under the same digest.
LATER: dict[str, Any] = {"pad_beyond": None, "picture": "photo"}


@dataclass(frozen=True)
class PackSpec:
    """Size in pixels of the frames that the photos are decoded to, once, and how they fill them.

    ``pad_beyond``: a photo whose aspect is off the frame's by more than this factor keeps it, in the middle of white;
    all others are squeezed to the frame. 2 pads extreme ones only, 1 all that do not fit, None none. ``picture``: the
    photo itself, the photo with its plain ground made white, or its contours (``tasks.pictures.odd_pictures``).
    """

    frame_height: int
    frame_width: int
    pad_beyond: float | None = None
    picture: Picture = "photo"

    def __str__(self) -> str:
        padding = f", padded beyond {self.pad_beyond:g}" if self.pad_beyond else ""
        return f"{self.frame_height} x {self.frame_width} ({self.picture}{padding})"
