"""Cropping and resampling as weighted sums, for a whole batch at once, on the device where the frames lie.

Along each axis an output pixel is a weighted sum of a few neighbouring lines of the frame, or of a window of it: of
the dense matrix of weights, nearly all zero, only these *taps* are computed.

Shapes: B batch, P windows, X all of the batch, C channels, H and W frame, h and w output or window, R samples, T taps,
L lines of D numbers; a rectangle is (x1, x2, y1, y2) in fractions of the frame. A *scale* is the number of source
pixels per output pixel. Places are counted in pixels; the centre of pixel i lies at i + 0.5.

**Scale matching.** A crop of a frame is magnified more than the whole frame, so sharpness and noise alone could tell
them apart, without any trace of lens or composition. Therefore every sample, crop or whole:
1. is reduced (antialiased, never enlarged) to an intermediate width that is drawn from a law *independent of the
   label*, by a filter whose blur per intermediate pixel, together with the blur of the frame's own pixels, is the same
   in both classes (``matched``): a narrow crop gets a slightly sharper filter than a whole frame;
2. is reduced from there to the input size. (A patch is a window of the intermediate picture: its second step is none.)
3. gets noise of a strength that is again independent of the label.

What remains: the finest detail of a stored frame is partly aliased, which only a crop that is hardly reduced shows. On
a scale-free random field (1/f), without noise, the detail of all sixteen patches tells crop from whole with an area
under the ROC curve of 0.79 where the least reduction is 1, 0.58 at 1.6 and 0.51 at 2; with noise of up to 0.02 it is
0.57, 0.53 and 0.50: a scale law had better stay at half of the narrowest crop's width. Noise and JPEG error of the
stored frame are averaged over (1/s)^2 times more pixels where the frame is whole, at most a factor of two in
amplitude, under step 3; the blur of the photo itself, where it exceeds the frame's pixels. Scenes whose *content* has a
typical size tell the size factor honestly: that is composition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

CACHED = 2**20  # numbers of a frame that a core works on at a time: 4 MB


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
        reach=lambda scale: 5 * std(scale),
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

    In [0, 1] of uint8 frames, else in the frames' own range. With ``intermediate_px_B`` it first becomes that many
    pixels wide (and proportionally high); from there it is antialiased.
    ``mirrored_B2`` mirrors the frame left to right, or top to bottom, *before* the crop, so the rectangle stays what it
    is. Nothing outside the rectangle is read. A GPU does not wait for rectangles that lie on the CPU.
    """
    height, width = size
    x1, x2, y1, y2 = rectangle_B4.double().unbind(1)
    mirrored_B2 = torch.zeros_like(rectangle_B4[:, :2], dtype=torch.bool) if mirrored_B2 is None else mirrored_B2
    rows_px = None if intermediate_px_B is None else intermediate_height(intermediate_px_B, height / width)
    axis_x = Axis.of_frame(x1, x2, frame_BCHW.shape[3], mirrored_B2[:, 0])
    axis_y = Axis.of_frame(y1, y2, frame_BCHW.shape[2], mirrored_B2[:, 1])
    vertical = _steps(axis_y, height, rows_px, by, frame_BCHW.device)
    return resample(frame_BCHW, vertical, _steps(axis_x, width, intermediate_px_B, by, frame_BCHW.device))[:, 0]


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

    def to(self, device: torch.device | None) -> "Axis":
        """The same on that device."""
        return Axis(self.start_B.to(device), self.extent_B.to(device), self.length, self.mirrored_B.to(device))

    def places(self, row_BPR: Tensor, count_B11: Tensor) -> Tensor:
        """Centres, in pixels of the frame as it lies, of those of ``count`` equal parts."""
        start_B11, extent_B11 = self.start_B[:, None, None], self.extent_B[:, None, None]
        place_BPR = start_B11 + (row_BPR + 0.5) * (extent_B11 / count_B11)
        return torch.where(self.mirrored_B[:, None, None], self.length - place_BPR, place_BPR)


@dataclass(frozen=True)
class Taps:
    """R samples in each of P windows along an axis of ``length`` pixels, each a weighted sum of T neighbouring ones.

    ``first``: the first of these. By photo: how many ``counts`` of T it needs, and how many pixels a window ``spans``.
    """

    weight_BPRT: Tensor
    first_BPR: Tensor
    length: int
    counts: list[int]
    spans: list[int]

    @property
    def span(self) -> int:
        """Pixels that hold every window."""
        return max(self.spans)

    @property
    def origin_BP(self) -> Tensor:
        """The first of ``span`` pixels that hold each window."""
        return self.first_BPR.amin(2).clamp(max=self.length - self.span)

    def of(self, b: int, some: slice) -> "Taps":
        """Those of some windows of a photo, without what only other photos need."""
        count, span = self.counts[b], self.spans[b]
        weight_BPRT = self.weight_BPRT[b : b + 1, some, :, :count]
        return Taps(weight_BPRT, self.first_BPR[b : b + 1, some], self.length, [count], [span])


def taps(
    axis: Axis, count_B: Tensor, first_BP: Tensor, rows: int, by: Filter = TRIANGLE, device: torch.device | None = None
) -> Taps:
    """The samples first .. first + rows - 1 among ``count`` equal parts of the axis, each averaged around its centre.

    Pixels whose centre lies outside the axis have no weight; samples from ``count`` on are zero. Places are best given
    in float64 and on the CPU: then a GPU, where ``device`` is one, is not waited for.
    """
    scale_B = axis.extent_B / count_B
    reach_B = by.reach(scale_B)
    counts: list[int] = (2 * reach_B).ceil().long().tolist()
    spans_B = ((rows - 1) * scale_B + 2 * reach_B).ceil().long() + 1
    axis, count_B11, reach_B11 = axis.to(device), *(each[:, None, None].to(device) for each in (count_B, reach_B))
    row_BPR = (first_BP[..., None] + torch.arange(rows, device=first_BP.device)).to(device)
    centre_BPR = axis.places(row_BPR, count_B11)
    first_BPR = (centre_BPR - reach_B11 + 0.5).floor().clamp(0, axis.length - 1)
    pixel_BPRT = first_BPR[..., None] + torch.arange(max(counts), device=first_BPR.device) + 0.5
    low_B111, extent_B111 = axis.low_B[:, None, None, None], axis.extent_B[:, None, None, None]
    is_inside_BPRT = (pixel_BPRT >= low_B111) & (pixel_BPRT <= low_B111 + extent_B111)
    is_inside_BPRT &= (row_BPR < count_B11)[..., None]
    distance_BPRT = (pixel_BPRT - centre_BPR[..., None]).float()
    weight_BPRT = by.weight(distance_BPRT, (extent_B111 / count_B11[..., None]).float()) * is_inside_BPRT
    weight_BPRT /= weight_BPRT.sum(-1, keepdim=True).clamp(min=1e-12)
    return Taps(weight_BPRT, first_BPR.long(), axis.length, counts, spans_B.clamp(max=axis.length).tolist())


def _steps(axis: Axis, count: int, intermediate_B: Tensor | None, by: Filter, device: torch.device) -> list[Taps]:
    """The way to ``count`` samples, by way of ``intermediate`` pixels if there are such."""
    count_B, zero_B1 = torch.full_like(axis.start_B, count), torch.zeros_like(axis.start_B)[:, None]
    if intermediate_B is None:
        return [taps(axis, count_B, zero_B1, count, by, device)]
    largest = int(intermediate_B.max())
    between = Axis.whole(intermediate_B.to(count_B), largest)
    return [
        taps(axis, between.extent_B, zero_B1, largest, by, device),
        taps(between, count_B, zero_B1, count, device=device),
    ]


def resample(
    frame_BCHW: Tensor, vertical: list[Taps], horizontal: list[Taps], is_at_once: bool | None = None
) -> Tensor:
    """Windows [B, P, C, R, R], float, step by step along the columns and then along the rows: in [0, 1] of uint8
    frames, else in the frames' own range.

    On a GPU all at once; on a CPU a few windows at a time, so that what is worked on stays in its cache.
    """
    if not frame_BCHW.is_floating_point():
        vertical = [replace(vertical[0], weight_BPRT=vertical[0].weight_BPRT / 255), *vertical[1:]]
    if frame_BCHW.is_cuda if is_at_once is None else is_at_once:
        return _resample(frame_BCHW, vertical, horizontal).contiguous()
    (batch, windows), channels = vertical[0].first_BPR.shape[:2], frame_BCHW.shape[1]
    size = (vertical[-1].first_BPR.shape[2], horizontal[-1].first_BPR.shape[2])
    found_BPCRR = torch.empty((batch, windows, channels, *size))
    for b in range(batch):
        at_once = max(1, CACHED // (vertical[0].spans[b] * horizontal[0].spans[b] * channels))
        for p in range(0, windows, at_once):
            some = slice(p, p + at_once)
            steps = ([step.of(b, some) for step in steps] for steps in (vertical, horizontal))
            found_BPCRR[b : b + 1, some] = _resample(frame_BCHW[b : b + 1], *steps)
    return found_BPCRR


def _resample(frame_BCHW: Tensor, vertical: list[Taps], horizontal: list[Taps]) -> Tensor:
    top_BP, left_BP = vertical[0].origin_BP, horizontal[0].origin_BP
    window_BPhwC = gather_windows(frame_BCHW, top_BP, left_BP, (vertical[0].span, horizontal[0].span))
    window_XhwC = window_BPhwC.flatten(0, 1)
    tall_XRwC = _along(window_XhwC.flatten(2), vertical, top_BP).unflatten(2, window_XhwC.shape[2:])
    tall_XwCR = tall_XRwC.permute(0, 2, 3, 1)
    found_XRCR = _along(tall_XwCR.flatten(2), horizontal, left_BP).unflatten(2, tall_XwCR.shape[2:])
    return found_XRCR.permute(0, 2, 3, 1).unflatten(0, top_BP.shape)


def _along(line_XLD: Tensor, steps: list[Taps], origin_BP: Tensor) -> Tensor:
    """Weighted sums [X, R, D] of lines, the first of which is that of pixel ``origin``; step by step."""
    for step in steps:
        windows, length = line_XLD.shape[:2]
        window_X, tap_T = (torch.arange(n, device=line_XLD.device) for n in (windows, step.weight_BPRT.shape[3]))
        place_XRT = (step.first_BPR - origin_BP[..., None]).flatten(0, 1)[..., None] + tap_T
        place_XRT = place_XRT.clamp_(max=length - 1).add_(window_X[:, None, None] * length)
        sum_YD = functional.embedding_bag(
            place_XRT.flatten(0, 1),
            line_XLD.flatten(0, 1),
            mode="sum",
            per_sample_weights=step.weight_BPRT.flatten(0, 2),
        )
        line_XLD, origin_BP = sum_YD.unflatten(0, (windows, -1)), torch.zeros_like(origin_BP)
    return line_XLD


def gather_windows(frame_BCHW: Tensor, top_BP: Tensor, left_BP: Tensor, size: tuple[int, int]) -> Tensor:
    """The windows of ``size`` (rows, columns) at those corners, float [B, P, rows, columns, C]."""
    frame_BHWC, (height, width) = frame_BCHW.permute(0, 2, 3, 1), size
    if frame_BHWC.is_cuda:
        photo, row, column = (torch.arange(n, device=frame_BHWC.device) for n in (len(top_BP), height, width))
        y, x = (top_BP[..., None] + row)[..., None], (left_BP[..., None] + column)[:, :, None]
        return frame_BHWC[photo.view(-1, 1, 1, 1), y, x].float()
    windows = torch.empty((*top_BP.shape, height, width, frame_BHWC.shape[3]))
    for b, corners in enumerate(torch.stack([top_BP, left_BP], 2).tolist()):  # plain copies: 3 to 8 times an index
        for p, (top, left) in enumerate(corners):
            windows[b, p] = frame_BHWC[b, top : top + height, left : left + width]
    return windows
