"""Pictures as they are packed where a plain shrunk photo will not do: whole in white, without ground, as contours.

White is the ground of all three, so they agree with each other. What is taken for ground hangs together with the edge
of the picture and has the colour of that edge, which may change slowly from one side to another; a picture whose edge
has no such colour stays as it is. So this is for objects on plain grounds, as museums and shops photograph them, and
does nothing to a street or a meadow. Shadows and whatever an object encloses stay with it; where an object has the
colour of its ground it is lost, and a misty lake counts as a ground. Look at a sheet of your own photos first:
``python tests/bench/odd_pictures.py FOLDER --sheet sheet.jpg``.

Sources: Adams and Bischof, "Seeded region growing", IEEE PAMI 16(6), 1994 (the ground); CIE 15:2004 (colour distances);
Canny, "A computational approach to edge detection", IEEE PAMI 8(6), 1986 (the contours); Shiloach and Vishkin, "An
O(log n) parallel connectivity algorithm", Journal of Algorithms 3, 1982 (what hangs together).
"""

import numpy as np
import numpy.typing as npt

from tasks.pictures import imaging
from tasks.pictures.imaging import Pixels

Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]
WHITE, BLACK = 255, 0

# Of the ground. Distances are CIE 1976 ones, of which 2.3 are just seen (Mahy et al., Color Research 19(2), 1994).
BORDER = 0.02  # of the shorter side: where the seeds lie
ROUGH_DISTANCE = 25.0  # from the median of the border: what may be ground at all
MAX_SPREAD = 5.0  # root mean square of the ground's distances from its own model; more is no plain ground
MIN_DISTANCE, SPREADS = 6.0, 3.5  # how far ground may be from the model: the larger one of the two
MIN_PLAIN = 0.6  # of the border: less of it in one colour is no plain ground
MIN_OBJECT = 0.002  # of the picture: smaller pieces are dust, and if nothing larger is left the picture stays as it is

# Of the contours: of the range of grey.
SIGMA_PX = 1.2
STRONG_SHARE = 0.12  # of the pixels: their gradients count as edges for sure
MIN_STRONG = 0.04  # gradient of grey a pixel, below which everything is noise
WEAK = 0.4  # of the strong threshold; Canny asks for a half to a third


def inner_size(
    width: int, height: int, frame_height: int, frame_width: int, pad_beyond: float | None
) -> tuple[int, int]:
    """(height, width) that a picture of width x height takes in its frame: all of it, unless it is to be padded.

    It is if its aspect is off that of the frame by more than the factor ``pad_beyond``; then it keeps its aspect.
    """
    off = width * frame_height / (height * frame_width)
    if pad_beyond is None or max(off, 1 / off) <= pad_beyond:
        return frame_height, frame_width
    return max(1, round(frame_height / max(off, 1))), max(1, round(frame_width * min(off, 1)))


def pad(pixels: Pixels, height: int, width: int) -> Pixels:
    """``pixels`` in the middle of a white frame of height x width x 3, which is not smaller."""
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    framed = np.full((height, width, 3), WHITE, np.uint8)
    framed[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return framed


def without_background(pixels: Pixels) -> Pixels:
    """``pixels`` (height x width x 3) with a white ground; as they are if their edge has no plain colour."""
    ground = background(pixels)
    if ground is None:
        return pixels
    return np.where(ground[:, :, None], np.uint8(WHITE), pixels)


def background(pixels: Pixels) -> Mask | None:
    """The ground of a picture, grown from its edge; None if it has none that is plain, or nothing upon it."""
    colour = to_lab(pixels)
    model = ground_model(colour)
    if model is None:
        return None
    expected, limit = model
    like_ground = distance(colour, expected) <= limit
    edge = border(like_ground.shape)
    ground = hanging_together(like_ground, like_ground & edge)
    things = ~ground
    ground |= things & ~large(things, MIN_OBJECT * things.size)
    return None if ground.all() else ground


def to_lab(pixels: Pixels) -> Plane:
    """CIE 1976 L*a*b* of sRGB ``pixels`` under D65, height x width x 3. Source: IEC 61966-2-1; CIE 15:2004, 8.2.1."""
    steps = np.arange(256) / 255
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4).astype(np.float32)[pixels]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
    xyz = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T  # white is (1, 1, 1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def distance(first: Plane, second: Plane) -> Plane:
    """CIE 1976 colour difference of L*a*b* values."""
    return np.asarray(np.sqrt(((first - second) ** 2).sum(axis=-1)))


def border(shape: tuple[int, ...]) -> Mask:
    """The pixels at the edge."""
    height, width = shape[:2]
    depth = max(1, round(BORDER * min(height, width)))
    edge = np.ones((height, width), np.bool_)
    edge[depth : height - depth, depth : width - depth] = False
    return edge


def ground_model(colour: Plane) -> tuple[Plane, float] | None:
    """(the colour that ground has at each pixel, how far ground may be from it); None if the edge is not plain.

    The colour is a quadratic function of the place, by least squares, since light falls off to the sides. It is fitted
    to the edge, and once more without what the first fit showed to be no ground.
    """
    height, width = colour.shape[:2]
    edge = border(colour.shape)
    y, x = np.broadcast_arrays(*np.ogrid[0 : 1 : height * 1j, 0 : 1 : width * 1j])
    place = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    seeds, values = place[edge], colour[edge]
    is_ground = distance(values, np.median(values, axis=0)) <= ROUGH_DISTANCE
    for _ in range(2):
        if is_ground.mean() < MIN_PLAIN:
            return None
        surface = fitted(seeds[is_ground], values[is_ground])
        off = distance(values, seeds @ surface)
        spread = float(np.sqrt((off[is_ground] ** 2).mean()))
        limit = max(MIN_DISTANCE, SPREADS * spread)
        is_ground = off <= limit
    if spread > MAX_SPREAD or is_ground.mean() < MIN_PLAIN:
        return None
    expected = place @ surface
    expected[..., 0] = expected[..., 0].clip(0, 100)  # towards the middle, light would grow beyond white
    return expected, limit


def fitted(places: Plane, values: Plane) -> Plane:
    """The coefficients, per column of ``values``, that give them from ``places`` with the least squares."""
    a, b = places.astype(np.float64), values.astype(np.float64)
    return np.linalg.lstsq(a.T @ a, a.T @ b, rcond=None)[0].astype(np.float32)  # lstsq: a tiny picture has few places


def contours(pixels: Pixels) -> Pixels:
    """The edges of ``pixels`` (height x width x 3) as black lines of one pixel on white."""
    grey = imaging.to_grey(pixels).astype(np.float32) / np.float32(255)
    across, down = gradients(blurred(grey, SIGMA_PX))
    strength = np.hypot(across, down)
    ridge = np.where(is_ridge(strength, across, down), strength, 0)
    strong = max(MIN_STRONG, float(np.quantile(strength, 1 - STRONG_SHARE)))
    lines = hanging_together(ridge >= WEAK * strong, ridge >= strong, diagonally=True)
    drawn = np.where(lines, np.uint8(BLACK), np.uint8(WHITE))
    return np.repeat(drawn[:, :, None], 3, axis=2)


def blurred(grey: Plane, sigma_px: float) -> Plane:
    """``grey`` under a Gaussian; the edge of the picture goes on outside of it."""
    reach = int(np.ceil(3 * sigma_px))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    padded = np.pad(grey, reach, mode="edge")
    rows = sum(w * padded[i : i + grey.shape[0]] for i, w in enumerate(weights))
    return np.asarray(sum(w * rows[:, i : i + grey.shape[1]] for i, w in enumerate(weights)), np.float32)


def gradients(grey: Plane) -> tuple[Plane, Plane]:
    """Sobel's derivatives of ``grey``, a pixel: to the right, and down."""
    p = np.pad(grey, 1, mode="edge")
    right, left = p[:, 2:], p[:, :-2]
    below, above = p[2:], p[:-2]
    across, down = right - left, below - above
    return (across[:-2] + 2 * across[1:-1] + across[2:]) / 8, (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 8


def is_ridge(strength: Plane, across: Plane, down: Plane) -> Mask:
    """Where ``strength`` is largest along its gradient, between whose two neighbours each way it is interpolated."""
    height, width = strength.shape
    p = np.pad(strength, 1)

    def at(dy: int, dx: int) -> Plane:
        return p[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    size_x, size_y = np.abs(across), np.abs(down)
    is_flat = size_x >= size_y
    share = np.minimum(size_x, size_y) / np.maximum(np.maximum(size_x, size_y), np.float32(1e-12))
    same_way = across * down >= 0
    corner_after = np.where(same_way, at(1, 1), np.where(is_flat, at(-1, 1), at(1, -1)))
    corner_before = np.where(same_way, at(-1, -1), np.where(is_flat, at(1, -1), at(-1, 1)))
    after = (1 - share) * np.where(is_flat, at(0, 1), at(1, 0)) + share * corner_after
    before = (1 - share) * np.where(is_flat, at(0, -1), at(-1, 0)) + share * corner_before
    ridge: Mask = (strength > before) & (strength >= after)
    return ridge


def hanging_together(mask: Mask, seeds: Mask, diagonally: bool = False) -> Mask:
    """The pixels of ``mask`` that hang together with one of ``seeds``, which lie in it: by sides, or by corners too."""
    run, roots = pieces(mask, diagonally)
    is_chosen = np.zeros(len(roots), np.bool_)
    is_chosen[roots[run[seeds]]] = True
    return mask & is_chosen[roots][run]


def large(mask: Mask, least_px: float) -> Mask:
    """The pieces of ``mask``, by corners too, of at least so many pixels."""
    run, roots = pieces(mask, diagonally=True)
    sizes = np.bincount(roots[run[mask]], minlength=len(roots))
    return mask & (sizes >= least_px)[roots][run]


def pieces(mask: Mask, diagonally: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(the number of the horizontal run that each pixel lies in, the smallest run of the piece that each run is of).

    What lies outside of ``mask`` has the number of some run too, and must be left out by whoever asks.
    """
    begins = mask.copy()
    begins[:, 1:] &= ~mask[:, :-1]
    run = np.maximum(np.cumsum(begins.ravel()) - 1, 0).reshape(mask.shape)
    upper, lower = [], []
    for shift in (-1, 0, 1) if diagonally else (0,):
        above = slice(max(0, -shift), mask.shape[1] - max(0, shift))
        below = slice(max(0, shift), mask.shape[1] - max(0, -shift))
        touches = mask[:-1, above] & mask[1:, below]
        upper.append(run[:-1, above][touches])
        lower.append(run[1:, below][touches])
    runs = int(begins.sum()) or 1
    links = np.unique(np.concatenate(upper) * runs + np.concatenate(lower))
    return run, joined(runs, links // runs, links % runs)


def joined(size: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of the members 0 .. size - 1 the smallest that links, of ``first`` with ``second``, join it to."""
    roots = np.arange(size)
    while True:
        before = roots.copy()
        lower = np.minimum(roots[first], roots[second])
        for members in (roots[first], roots[second]):  # the roots of both sides, so that whole trees are hooked
            np.minimum.at(roots, members, lower)
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]
        if np.array_equal(before, roots):
            return roots
