"""Cropping and resampling as matrices, for a whole batch at once, on the device where the frames lie.

Along each axis a rectangle of a frame becomes pixels by one small matrix of filter weights: a picture is two matrix
products, a patch two smaller ones on a window of the frame.

Shapes: B batch, P patches, C channels, H and W frame, h and w output, R rows of a matrix, L its columns (source
pixels); a rectangle is (x1, x2, y1, y2) in fractions of the frame. A *scale* is the number of source pixels per output
pixel. Places are counted in pixels; the centre of pixel i lies at i + 0.5.

**Scale matching.** A crop of a frame is magnified more than the whole frame, so sharpness and noise alone could tell
them apart, without any trace of lens or composition. Therefore every sample, crop or whole:
1. is reduced (antialiased, never enlarged) to an intermediate width that is drawn from a law *independent of the
   label*, by a filter whose blur per intermediate pixel, together with the blur of the frame's own pixels, is the same
   in both classes (``matched``): a narrow crop gets a slightly sharper filter than a whole frame;
2. is reduced from there to the input size; both steps together are one matrix per axis. (A patch is a window of the
   intermediate picture: its second step is none.)
3. gets noise of a strength that is again independent of the label.

What remains: the finest detail of a stored frame is partly aliased, which only a crop that is hardly reduced shows. On
a scale-free random field (1/f), without noise, the detail of all sixteen patches tells crop from whole with an area
under the ROC curve of 0.79 where the least reduction is 1, 0.58 at 1.6 and 0.51 at 2; with noise of up to 0.02 it is
0.57, 0.53 and 0.50: a scale law had better stay at half of the narrowest crop's width. Noise and JPEG error of the
stored frame are averaged over (1/s)^2 times more pixels where the frame is whole, at most a factor of two in
amplitude, under step 3; the blur of the photo itself, where it exceeds the frame's pixels. Scenes whose *content* has a
typical size tell the size factor honestly: that is composition.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Filter:
    """Weights of source pixels by their distance from a sample's centre and by the scale, and the distance from which
    on they are zero; all in source pixels."""

    weight: Callable[[Tensor, Tensor], Tensor]
    reach: Callable[[Tensor], Tensor]


def _antialiased(shape: Callable[[Tensor], Tensor], lobes: int) -> Filter:
    """A filter of that shape which widens with the reduction, and interpolates where nothing is reduced."""
    return Filter(
        weight=lambda distance, scale: shape(distance / scale.clamp(min=1)),
        reach=lambda scale: lobes * scale.clamp(min=1),
    )


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Source: R. Keys, "Cubic convolution interpolation", IEEE TASSP 1981, with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x.square() + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    """Three lobes."""
    return torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)


def _interpolating(shape: Callable[[Tensor], Tensor], lobes: int) -> Filter:
    """A filter of that shape which never widens: it skips pixels where it reduces."""
    return Filter(lambda distance, scale: shape(distance), lambda scale: torch.full_like(scale, lobes))


def _area(distance: Tensor, scale: Tensor) -> Tensor:
    """How much of each pixel lies in a box that is as wide as an output pixel, and no narrower than a pixel."""
    half = scale.clamp(min=1) / 2
    return (half.minimum(distance + 0.5) - (-half).maximum(distance - 0.5)).clamp(min=0)


TRIANGLE = _antialiased(_triangle, 1)
BILINEAR = _interpolating(_triangle, 1)
NEAREST = Filter(lambda distance, scale: ((distance > -0.5) & (distance <= 0.5)).float(), torch.ones_like)
FILTERS = {
    "triangle": TRIANGLE,
    "nearest": NEAREST,
    "cubic": _antialiased(_cubic, 2),
    "lanczos": _antialiased(_lanczos, 3),
}
# The five interpolations of OpenCV's resize, of which only the area looks at every pixel; the cubic is that of Keys.
PLAIN = {
    "bilinear": BILINEAR,
    "nearest": NEAREST,
    "cubic": _interpolating(_cubic, 2),
    "lanczos": _interpolating(_lanczos, 3),
    "area": Filter(_area, reach=lambda scale: scale.clamp(min=1) / 2 + 0.5),
}


def drawn(filters: Sequence[Filter], number_B: Tensor) -> Filter:
    """For each sample of a batch the filter of its number."""
    if len(filters) == 1:
        return filters[0]

    def weight(distance: Tensor, scale: Tensor) -> Tensor:
        number = number_B.view(-1, *[1] * (distance.ndim - 1))
        found = torch.zeros_like(distance)
        for place, each in enumerate(filters):
            found = torch.where(number == place, each.weight(distance, scale).to(found.dtype), found)
        return found

    return Filter(weight, reach=lambda scale: torch.stack([each.reach(scale) for each in filters]).amax(0))


def matched(least_scale: float) -> Filter:
    """The filter that, with the frame's own pixels, blurs alike at every scale from ``least_scale`` on.

    There it is the plain triangle: two boxes of one output pixel each, and the frame's pixel is a third box, of
    1 / least_scale. At a larger scale the frame's pixel is smaller; two boxes of a output pixels and one of c make up
    for it, so that the second and the fourth cumulants of all boxes together, sums of squares and of fourth powers of
    their widths, stay what they were. Up to half a cycle per output pixel the response is then the same within 1 %; a
    triangle that matches the second cumulant alone is off by up to 10 %.
    """
    most = least_scale**-2

    def boxes(scale: Tensor) -> tuple[Tensor, Tensor]:
        pixel = scale**-2
        squares, fourths = 2 + most - pixel, 2 + most**2 - pixel**2
        two = squares / 3 + ((3 * fourths - squares**2).clamp(min=0) / 18).sqrt()
        one = (squares - 2 * two).clamp(min=0)
        return (scale * two.sqrt()).clamp(min=1), (scale * one.sqrt()).clamp(min=0.05)  # less is lost in rounding

    def weight(distance: Tensor, scale: Tensor) -> Tensor:
        half_width, box = boxes(scale)
        return _under_triangle((distance + box / 2) / half_width) - _under_triangle((distance - box / 2) / half_width)

    return Filter(weight, reach=lambda scale: boxes(scale)[0] + boxes(scale)[1] / 2)


def matched_gaussian(least_scale: float) -> Filter:
    """A Gaussian that, with the frame's own pixels, blurs alike at every scale from ``least_scale`` on.

    Its second cumulant and that of the frame's pixel together are those of ``matched``; a Gaussian has no others, and
    the fourth one of the frame's pixel moves the response up to half a cycle per output pixel by less than 1 % where
    ``least_scale`` is 1.6, and by 3 % where it is 1.
    """
    most = least_scale**-2

    def std(scale: Tensor) -> Tensor:
        return scale * ((2 + most - scale**-2) / 12).sqrt()

    return Filter(
        weight=lambda distance, scale: (-0.5 * (distance / std(scale)).square()).exp(),
        reach=lambda scale: 3.5 * std(scale),
    )


def _under_triangle(x: Tensor) -> Tensor:
    """The integral of the triangle from 0 to x."""
    x = x.clamp(-1, 1)
    return x - x * x.abs() / 2


def crop_and_resize(
    frame_BCHW: Tensor,
    rectangle_B4: Tensor,
    size: tuple[int, int],
    intermediate_px_B: Tensor | None = None,
    mirrored_B2: Tensor | None = None,
    by: Filter = TRIANGLE,
) -> Tensor:
    """The rectangle of each frame, resampled to ``size`` (h, w), float [B, C, h, w].

    With ``intermediate_px_B`` it first becomes that many pixels wide (and proportionally high); from there it is
    antialiased.
    ``mirrored_B2`` mirrors the frame left to right, or top to bottom, *before* the crop, so the rectangle stays what it
    is. Nothing outside the rectangle is read.
    """
    height, width = size
    x1, x2, y1, y2 = rectangle_B4.unbind(1)
    mirrored_B2 = torch.zeros_like(rectangle_B4[:, :2], dtype=torch.bool) if mirrored_B2 is None else mirrored_B2
    rows_px = None if intermediate_px_B is None else intermediate_height(intermediate_px_B, height / width)
    axis_x = Axis.of_frame(x1, x2, frame_BCHW.shape[3], mirrored_B2[:, 0])
    axis_y = Axis.of_frame(y1, y2, frame_BCHW.shape[2], mirrored_B2[:, 1])
    horizontal_BwW = _matrix_by_way_of(axis_x, width, intermediate_px_B, by)
    vertical_BhH = _matrix_by_way_of(axis_y, height, rows_px, by)
    return vertical_BhH[:, None] @ frame_BCHW @ horizontal_BwW.mT[:, None]


def intermediate_height(width_px: Tensor, height_per_width: float) -> Tensor:
    """The height of a picture that is ``width_px`` wide, in whole pixels."""
    return (width_px * height_per_width).round()


@dataclass(frozen=True)
class Axis:
    """One axis of a batch of samples in its frames of ``length`` pixels: they begin at ``start`` and have ``extent``.

    Where ``mirrored``, both are counted from the frame's other border, and so are the samples.
    """

    start_B: Tensor
    extent_B: Tensor
    length: int
    mirrored_B: Tensor

    @classmethod
    def of_frame(cls, low_B: Tensor, high_B: Tensor, length: int, mirrored_B: Tensor) -> "Axis":
        """From ``low`` to ``high``, fractions of the frame."""
        return cls(low_B * length, (high_B - low_B) * length, length, mirrored_B)

    @classmethod
    def whole(cls, extent_B: Tensor, length: int) -> "Axis":
        """The first ``extent`` of ``length`` pixels."""
        return cls(torch.zeros_like(extent_B), extent_B, length, torch.zeros_like(extent_B, dtype=torch.bool))

    @property
    def low_B(self) -> Tensor:
        """The smaller of its two borders, in pixels of the frame as it lies."""
        return torch.where(self.mirrored_B, self.length - self.start_B - self.extent_B, self.start_B)

    def places(self, row_BR: Tensor, count_B: Tensor) -> Tensor:
        """Centres, in pixels of the frame as it lies, of those of ``count`` equal parts [B, R]."""
        place_BR = self.start_B[:, None] + (row_BR + 0.5) * (self.extent_B / count_B)[:, None]
        return torch.where(self.mirrored_B[:, None], self.length - place_BR, place_BR)


def _matrix_by_way_of(axis: Axis, count: int, intermediate_B: Tensor | None, by: Filter) -> Tensor:
    """Weights [B, count, length] to ``count`` samples, by way of ``intermediate`` pixels if there are such."""
    count_B = torch.full_like(axis.start_B, count)
    if intermediate_B is None:
        return resampling_matrix(axis, count_B, count, by)
    largest = int(intermediate_B.max())
    first = resampling_matrix(axis, intermediate_B, largest, by)
    return resampling_matrix(Axis.whole(intermediate_B, largest), count_B, count) @ first


def resampling_matrix(axis: Axis, count_B: Tensor, rows: int, by: Filter = TRIANGLE) -> Tensor:
    """Weights [B, rows, length]; rows from ``count_B`` on are zero.

    Row i averages around the centre of the i-th of ``count`` equal parts of the axis; pixels whose centre lies outside
    the axis have no weight.
    """
    row_1R = torch.arange(rows, device=count_B.device)[None]
    scale_B = axis.extent_B / count_B
    weight_BRL = _weights(axis.places(row_1R, count_B), scale_B, axis.low_B, axis.extent_B, axis.length, by)
    return weight_BRL * (row_1R < count_B[:, None])[..., None]


def _weights(centre_XR: Tensor, scale_X: Tensor, low_X: Tensor, extent_X: Tensor, columns: int, by: Filter) -> Tensor:
    """Filter weights [X, R, columns] around each centre, of the pixels within the extent alone; float32."""
    pixel_L = torch.arange(columns, device=centre_XR.device, dtype=torch.float32) + 0.5
    weight_XRL = by.weight(pixel_L - centre_XR.float()[..., None], scale_X.float()[..., None, None])
    inside_XL = (pixel_L >= low_X[..., None]) & (pixel_L <= (low_X + extent_X)[..., None])
    weight_XRL = weight_XRL * inside_XL[..., None, :]
    return weight_XRL / weight_XRL.sum(-1, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class Windows:
    """One axis of P windows a frame: weights [B, P, R, L], and the source pixel [B, P] that column 0 stands for."""

    weight_BPRL: Tensor
    origin_BP: Tensor


def window_length(rows: int, largest_scale: float, by: Filter, length: int) -> int:
    """Source pixels that ``rows`` neighbouring samples need at most, of the ``length`` that there are."""
    reach = float(by.reach(torch.tensor(largest_scale, dtype=torch.float64)))
    return min(length, math.ceil((rows - 1) * largest_scale + 2 * reach) + 1)


def windows(axis: Axis, count_B: Tensor, first_BP: Tensor, rows: int, columns: int, by: Filter) -> Windows:
    """The samples first .. first + rows - 1 among ``count``: rows of ``resampling_matrix``, of which ``columns`` (at
    least ``window_length``) columns are kept. Places are best given in float64."""
    row_BPR = first_BP[..., None] + torch.arange(rows, device=count_B.device)
    centre_BPR = axis.places(row_BPR.flatten(1), count_B).unflatten(1, (*first_BP.shape[1:], rows))
    scale_BP = (axis.extent_B / count_B)[:, None].expand_as(first_BP)
    origin_BP = (centre_BPR.amin(2) - by.reach(scale_BP)).floor().clamp(0, axis.length - columns)
    low_BP, extent_BP = axis.low_B[:, None] - origin_BP, axis.extent_B[:, None].expand_as(first_BP)
    weight_BPRL = _weights(centre_BPR - origin_BP[..., None], scale_BP, low_BP, extent_BP, columns, by)
    return Windows(weight_BPRL, origin_BP.long())


def resample_windows(frame_BCHW: Tensor, vertical: Windows, horizontal: Windows) -> Tensor:
    """Patches [B, P, C, R, R], float, in the frames' own range."""
    size = vertical.weight_BPRL.shape[-1], horizontal.weight_BPRL.shape[-1]
    rows_XRh, columns_XRw = vertical.weight_BPRL.flatten(0, 1), horizontal.weight_BPRL.flatten(0, 1)
    window_XhwC = gather_windows(frame_BCHW, vertical.origin_BP, horizontal.origin_BP, size).flatten(0, 1).float()
    narrow_XRwC = (rows_XRh @ window_XhwC.flatten(2)).unflatten(2, window_XhwC.shape[2:])
    narrow_XCRw = narrow_XRwC.permute(0, 3, 1, 2)
    patch_XCRR = (narrow_XCRw.flatten(1, 2) @ columns_XRw.mT).unflatten(1, narrow_XCRw.shape[1:3])
    return patch_XCRR.unflatten(0, vertical.origin_BP.shape)


def resample_tiles(frame_BCHW: Tensor, vertical: Windows, horizontal: Windows, tiles: int) -> Tensor:
    """Patches [B, P, C, T * R, T * R] of T = ``tiles`` by T windows, whose rows and columns are given [B, P * T]."""

    def spread(axis: Windows, place: int) -> Windows:
        each = (axis.weight_BPRL, axis.origin_BP)
        return Windows(
            *(
                values.unflatten(1, (-1, tiles)).unsqueeze(place).repeat_interleave(tiles, place).flatten(1, 3)
                for values in each
            )
        )

    patch_BTCRR = resample_windows(frame_BCHW, spread(vertical, 3), spread(horizontal, 2))
    patch_BPyxCRR = patch_BTCRR.unflatten(1, (-1, tiles, tiles))
    return patch_BPyxCRR.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


def gather_windows(frame_BCHW: Tensor, top_BP: Tensor, left_BP: Tensor, size: tuple[int, int]) -> Tensor:
    """The windows of ``size`` (rows, columns) at those corners, [B, P, rows, columns, C], of the frames' own type."""
    frame_BHWC, (height, width) = frame_BCHW.permute(0, 2, 3, 1), size
    if frame_BHWC.is_cuda:
        photo, row, column = (torch.arange(n, device=frame_BHWC.device) for n in (len(top_BP), height, width))
        y, x = (top_BP[..., None] + row)[..., None], (left_BP[..., None] + column)[:, :, None]
        return frame_BHWC[photo.view(-1, 1, 1, 1), y, x]
    windows = frame_BHWC.new_empty((*top_BP.shape, height, width, frame_BHWC.shape[3]))
    for b, corners in enumerate(torch.stack([top_BP, left_BP], 2).tolist()):  # plain copies: 3 to 8 times an index
        for p, (top, left) in enumerate(corners):
            windows[b, p] = frame_BHWC[b, top : top + height, left : left + width]
    return windows
