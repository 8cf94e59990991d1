"""What a network says of a photo, drawn: a crop inside the frame it was cut from, with heat-maps; or its categories."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tasks.pages.figures import PALETTE
from tasks.pages.heat_maps import heat_maps
from tasks.pictures import imaging

Row = Mapping[str, Any]
FRAME_PX = 480  # long side of the original frame as it is drawn
LINE_PX = 22
EDGE_PX = 3
TEXT_PX = 14
PAPER, MISSING = "white", "#e9e6df"  # what lies beyond the photo in the original frame


def draw_crop(photo: Image.Image, row: Row) -> Image.Image:
    """``photo`` where it seems to lie in its original frame (red: the head's rectangle, blue: that of the heat-maps),
    and the heat-maps beside it.

    Rectangles are in the photo's own orientation; heat-maps in the network's, from which ``net_turn`` leads back.
    """
    edges = [row[f"pred_{name}"] for name in ("x1", "x2", "y1", "y2")] if row["called_crop"] else [0.0, 1.0, 0.0, 1.0]
    x1, x2, y1, y2 = edges
    x2, y2 = max(x2, x1 + 0.05), max(y2, y1 + 0.05)
    wide, high = photo.width / (x2 - x1), photo.height / (y2 - y1)
    scale = FRAME_PX / max(wide, high)
    width_px, height_px = max(1, round(wide * scale)), max(1, round(high * scale))
    frame = Image.new("RGB", (width_px, height_px), MISSING)
    inside = (round(x1 * width_px), round(y1 * height_px), round(x2 * width_px), round(y2 * height_px))
    frame.paste(photo.resize((max(1, inside[2] - inside[0]), max(1, inside[3] - inside[1]))), inside[:2])
    pen = ImageDraw.Draw(frame)
    if row["called_crop"]:
        pen.rectangle(inside, outline=PALETTE["predicted"], width=EDGE_PX)
    parts = [frame]
    if row.get("location_probabilities") is not None:
        closed = [row[f"closed_{name}"] for name in ("x1", "x2", "y1", "y2")]
        corners = tuple(round(v * s) for v, s in zip(closed, (width_px, width_px, height_px, height_px), strict=True))
        pen.rectangle((corners[0], corners[2], corners[1], corners[3]), outline=PALETTE["accent"], width=EDGE_PX)
        parts.append(_maps(row, width_px, height_px))
    return _captioned(_beside(parts), crop_words(row))


def _maps(row: Row, width_px: int, height_px: int) -> Image.Image:
    """The heat-maps in the photo's own orientation, of the size of the frame."""
    back = imaging.invert(row["net_turn"])
    size = (height_px, width_px) if back in (5, 6, 7, 8) else (width_px, height_px)
    drawn = np.asarray(heat_maps(np.asarray(row["location_probabilities"]), *size))
    return Image.fromarray(np.ascontiguousarray(imaging.make_upright(drawn, back)))


def crop_words(row: Row) -> str:
    """The answer in one line: beside the probability the one that is enough for a crop, which is chosen on val and
    seldom one half."""
    said, takes = ("cropped", "is enough") if row["called_crop"] else ("whole", "would be enough")
    probability, enough = percentages(row["crop_probability"], row["crop_threshold"])
    words = f"{said}: {probability} % probability of a crop, {enough} % {takes}"
    if row["called_crop"]:
        words += f", size factor {row['pred_size_factor']:.2f}"
    if row.get("consistency") is not None:
        words += f", heat-maps off by {row['consistency']:.2f} of a side"
    return words


def percentages(first: float, second: float) -> tuple[str, str]:
    """Two shares in percent, with as many digits, of up to four, as it takes to tell them apart."""
    pairs = [(f"{100 * first:.{digits}f}", f"{100 * second:.{digits}f}") for digits in range(5)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])


def draw_category(photo: Image.Image, row: Row) -> Image.Image:
    """``photo`` and its most probable labels."""
    photo = photo.copy()
    photo.thumbnail((FRAME_PX, FRAME_PX))
    pairs = zip(row["top_labels"], row["top_probabilities"], strict=True)
    return _captioned(photo, ", ".join(f"{label} {100 * share:.0f} %" for label, share in pairs))


def _beside(parts: list[Image.Image]) -> Image.Image:
    gap_px = 12
    sheet = Image.new(
        "RGB", (sum(p.width for p in parts) + gap_px * (len(parts) - 1), max(p.height for p in parts)), PAPER
    )
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + gap_px
    return sheet


def _captioned(picture: Image.Image, words: str) -> Image.Image:
    """``picture`` over ``words`` on one line, wide enough for them; labels are the words of strangers."""
    words = " ".join(words.split())
    text_px = round(ImageDraw.Draw(picture).textlength(words, font_size=TEXT_PX))
    sheet = Image.new("RGB", (max(picture.width, text_px + 8), picture.height + LINE_PX), PAPER)
    sheet.paste(picture, (0, 0))
    ImageDraw.Draw(sheet).text((4, picture.height + 3), words, fill=PALETTE["ink"], font_size=TEXT_PX)
    return sheet


DRAWN: dict[str, Callable[[Image.Image, Row], Image.Image]] = {"crops": draw_crop, "categories": draw_category}
