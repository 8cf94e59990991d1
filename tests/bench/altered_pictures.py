"""What is done to pictures before ``duplicates.py`` looks for them again, and pictures that are only alike."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tasks.pictures.hashing import frames
from tasks.sources.standin.camera import Lens, render

Change = Callable[[Image.Image], Image.Image]
Pair = tuple[Image.Image, Image.Image]
QUALITY = 90


def jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """``image`` as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def reopened(image: Image.Image, quality: int) -> Image.Image:
    """``image`` as it looks as a JPEG."""
    return Image.open(io.BytesIO(jpeg(image, quality))).convert("RGB")


def cut(left: float, right: float, top: float, bottom: float) -> Change:
    """Cuts these shares of the sides away."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((
            round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height),
        ))  # fmt: skip

    return change


def cut_anywhere(share: float) -> Change:
    """Keeps all but ``share`` of each side, at a place that depends on the picture."""

    def change(image: Image.Image) -> Image.Image:
        x, y = np.random.default_rng(np.asarray(image)[::40, ::40].ravel()).uniform(0, share, 2)
        return cut(x, share - x, y, share - y)(image)

    return change


def framed(share: float, colour: str) -> Change:
    """A frame of ``share`` of the short side."""
    return lambda image: ImageOps.expand(image, border=max(1, round(min(image.size) * share)), fill=colour)


def signed(image: Image.Image) -> Image.Image:
    """White words across the lower right corner."""
    marked = image.copy()
    place = (image.width * 0.6, image.height * 0.9)
    ImageDraw.Draw(marked).text(place, "(c) Ann Example", fill="white", font_size=max(12, image.height / 20))
    return marked


def stamped(image: Image.Image) -> Image.Image:
    """Large translucent words across the middle."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    place, colour = (image.width * 0.1, image.height * 0.4), (255, 255, 255, 110)
    ImageDraw.Draw(layer).text(place, "SAMPLE PHOTO", fill=colour, font_size=image.width / 9)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def plated(image: Image.Image) -> Image.Image:
    """A light plate with dark bars over a fifth of each side, in the lower right corner."""
    marked = np.asarray(image).copy()
    plate = marked[-(image.height // 5) :, -(image.width // 5) :]
    plate[:] = plate // 3 + 170
    plate[:, :: max(image.width // 60, 2)] = 20
    return Image.fromarray(marked)


def dated(image: Image.Image) -> Image.Image:
    """A camera's orange date."""
    marked, place = image.copy(), (image.width * 0.72, image.height * 0.92)
    ImageDraw.Draw(marked).text(place, "22.11.2026", fill=(255, 140, 30), font_size=max(10, image.height / 18))
    return marked


def written(lines: int) -> Change:
    """Translucent words from corner to corner, over the whole picture if in several lines."""

    def change(image: Image.Image) -> Image.Image:
        side = image.width + image.height
        words, size = Image.new("L", (side, side)), image.width / (8 if lines == 1 else 12)
        for line in range(lines):
            place = (side / 2 + 37 * line % 97, side / 2 + (line - lines // 2) * 2.5 * size)
            text = "SAMPLE PHOTO" if lines == 1 else "SAMPLE PHOTO   " * 4
            ImageDraw.Draw(words).text(place, text, fill=110, font_size=size, anchor="mm")
        left, top = (side - image.width) // 2, (side - image.height) // 2
        words = words.rotate(33, Image.Resampling.BICUBIC).crop((left, top, left + image.width, top + image.height))
        return Image.composite(Image.new("RGB", image.size, "white"), image, words)

    return change


def branded(image: Image.Image) -> Image.Image:
    """An opaque logo over a tenth of the area, in one of the corners."""
    (width, height), share = image.size, 0.1**0.5
    rng = np.random.default_rng(np.asarray(image)[::40, ::40].ravel())
    x, y = (round(rng.choice([0.02, 0.98 - share]) * side) for side in image.size)
    across, down, marked = share * width, share * height, image.copy()
    pen = ImageDraw.Draw(marked)
    pen.rectangle((x, y, x + across, y + down), fill=(235, 235, 235))
    pen.ellipse((x + 0.3 * across, y + 0.15 * down, x + 0.7 * across, y + 0.6 * down), fill=(200, 30, 40))
    pen.text((x + across / 2, y + 0.8 * down), "ACME", fill="black", font_size=down / 5, anchor="mm")
    return marked


def curve(gamma: float) -> Change:
    """A tone curve."""
    return lambda image: image.point([round(255 * (value / 255) ** gamma) for value in range(256)] * 3)


MARKS: dict[str, Change] = {
    "watermark in a corner": signed,
    "watermark across": stamped,
    "watermark from corner to corner": written(1),
    "watermark all over": written(7),
    "plate in a corner": plated,
    "date in a corner": dated,
    "no claim: opaque logo of 10 %": branded,
}
CHANGES: dict[str, Change] = {
    "re-encoded, quality 50": lambda image: reopened(image, 50),
    "re-encoded, quality 30": lambda image: reopened(image, 30),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "quarter size": lambda image: image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS),
    "tone: gamma 1.6": curve(1.6),
    "tone: gamma 0.6": curve(0.6),
    "tone: brightness x 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "tone: contrast x 1.4": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "tone: without colour": lambda image: image.convert("L").convert("RGB"),
    **MARKS,
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "crop of 2 %": cut(0.01, 0.01, 0.01, 0.01),
    "crop of 2 %, anywhere": cut_anywhere(0.02),
    "crop of 5 %": cut(0.025, 0.025, 0.025, 0.025),
    "crop of 5 %, anywhere": cut_anywhere(0.05),
    "crop of 5 % at one side": cut(0.05, 0, 0, 0),
    "crop of 5 % at each side": cut(0.05, 0.05, 0.05, 0.05),
    "border of 2 %, white": framed(0.02, "white"),
    "border of 4 %, white": framed(0.04, "white"),
    "border of 8 %, white": framed(0.08, "white"),
    "border of 2 %, black": framed(0.02, "black"),
    "border of 4 %, black": framed(0.04, "black"),
    "border of 8 %, black": framed(0.08, "black"),
    "border of 4 %, grey": framed(0.04, "grey"),
    "mirrored, crop of 5 %, half size": lambda image: ImageOps.mirror(CHANGES["half size"](cut(*[0.025] * 4)(image))),
    "no claim: crop of 10 %, anywhere": cut_anywhere(0.1),
    "no claim: turned by 1 degree": lambda image: image.rotate(1, Image.Resampling.BICUBIC),
    "no claim: turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
}


def moved_subject(images: list[Image.Image], at: int, share: float) -> Pair:
    """Two frames between which a disc of ``share`` of the width went aside by its width or more; both have noise.

    The disc is a piece of another photograph, 50 grey levels darker (or lighter) than what it covers at both places.
    """
    image, other, rng = images[at], images[(at + len(images) // 4) % len(images)], np.random.default_rng(at)
    scene, size = np.asarray(image, np.float64), round(share * image.width)
    size = min(size, image.height)
    step = max(size, round(0.12 * image.width))
    left, top = rng.integers(0, image.width - size - step + 1), rng.integers(0, image.height - size + 1)
    covered = [scene[top : top + size, x : x + size].mean() for x in (left, left + step)]
    piece = np.asarray(ImageOps.fit(other, (size, size)), np.float64)
    level = min(covered) - 50 if min(covered) > 100 else max(covered) + 50
    piece = (piece - piece.mean()) * 0.5 + level
    disc = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) <= size / 2
    frames = []
    for x in (left, left + step):
        frame = scene.copy()
        frame[top : top + size, x : x + size][disc] = piece[disc]
        noisy = frame + rng.normal(0, 3, frame.shape[:2])[..., None]
        frames.append(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    return frames[0], frames[1]


def come_and_gone(images: list[Image.Image], at: int, share: float, is_other: bool = False) -> Pair:
    """The same place without and with somebody in it, or with somebody else: an ellipse of ``share`` of the width, 0.7
    to 1.6 times as high, a piece of another photograph at half of its contrast, 50 grey levels from what it covers (and
    from the other one); both have noise.
    """
    image, rng = images[at], np.random.default_rng((at, round(1000 * share), is_other))
    scene, wide = np.asarray(image, np.float64), round(share * image.width)
    high = min(image.height, round(wide * rng.uniform(0.7, 1.6)))
    left, top = rng.integers(0, image.width - wide + 1), rng.integers(0, image.height - high + 1)
    covered = scene[top : top + high, left : left + wide]
    y, x = np.mgrid[:high, :wide]
    is_there = np.hypot((y + 0.5) / high - 0.5, (x + 0.5) / wide - 0.5) <= 0.5
    level, frames = covered[is_there].mean(), []
    for number, step in enumerate((4, 3)):
        frame = scene.copy()
        if number == 1 or is_other:
            level += 50 if level < 100 else -50
            other = ImageOps.fit(images[(at + len(images) // step) % len(images)], (wide, high))
            piece = np.asarray(other, np.float64)
            frame[top : top + high, left : left + wide][is_there] = ((piece - piece.mean()) * 0.5 + level)[is_there]
        noisy = frame + rng.normal(0, 3, frame.shape[:2])[..., None]
        frames.append(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))
    return frames[0], frames[1]


def moon(seed: int) -> Image.Image:
    """One bright disc for all, other spots for each seed."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (600, 400), (5, 5, 10))
    pen = ImageDraw.Draw(image)
    pen.ellipse((180, 80, 420, 320), fill=(220, 220, 210))
    for x, y, radius in zip(*rng.uniform([[220], [120], [3]], [[380], [280], [14]], (3, 14)), strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(170, 170, 165))
    return image


def card(seed: int) -> Image.Image:
    """One form for all, another face and another name for each seed."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (600, 380), (200, 220, 240))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 600, 70), fill=(20, 50, 140))
    pen.text((20, 15), "UNIVERSITY CARD", fill="white", font_size=34)
    pen.ellipse((60, 120, 180, 280), fill=tuple(rng.integers(60, 240, 3).tolist()))
    for line in range(4):
        pen.text((230, 120 + 50 * line), "".join(rng.choice(list("abcdefghij klmno"), 18)), fill="black", font_size=26)
    return image


def fractal(rng: np.random.Generator, slope: float, height: int = 400, width: int = 600) -> np.ndarray:
    """A texture whose amplitude falls with frequency to the power of ``slope``; standard deviation 1."""
    waves = np.fft.rfft2(rng.normal(size=(height, width)))
    frequency = np.hypot(np.fft.rfftfreq(width)[None] * width / height, np.fft.fftfreq(height)[:, None]) + 1e-3
    texture = np.fft.irfft2(waves / frequency**slope, (height, width))
    return texture / texture.std()


def sky(seed: int, clouds: float) -> Image.Image:
    """One gradient for all, other clouds for each seed; ``clouds``: grey levels."""
    down = np.linspace(0, 1, 400)[:, None, None]
    texture = fractal(np.random.default_rng(seed), 1.6)[..., None]
    return Image.fromarray(np.clip([90, 140, 210] + [90, 70, 30] * down + clouds * texture, 0, 255).astype(np.uint8))


def meadow(seed: int, slope: float) -> Image.Image:
    """One horizon and one light for all, other grass for each seed."""
    down = np.linspace(0, 1, 400)[:, None, None]
    grass = np.array([70, 120, 50]) * (0.7 + 0.6 * down) + 25 * fractal(np.random.default_rng(seed), slope)[..., None]
    above = np.clip(1 - 3 * down, 0, 1)
    return Image.fromarray(np.clip(above * [120, 170, 230] + (1 - above) * grass, 0, 255).astype(np.uint8))


def flat(seed: int) -> Image.Image:
    """Black, white, grey, fog: nothing to see, but for a light fall-off and noise of half a grey level."""
    rng = np.random.default_rng(seed)
    light = rng.choice([0, 255, 128, 40, 220]) + rng.uniform(-3, 3) * np.linspace(-1, 1, 600)[None, :, None]
    return Image.fromarray(np.clip(light + rng.normal(0, 0.5, (400, 600, 3)), 0, 255).astype(np.uint8))


def near_misses(images: list[Image.Image]) -> dict[str, list[Pair]]:
    """Pairs that are not the same, by what they are.

    Where the edges of a picture are of one colour, another framing is another border: such pairs are counted apart.
    """
    edged = [image for image in images if not frames(np.asarray(image.convert("L")))]
    plain = [image for image in images if frames(np.asarray(image.convert("L")))]
    pans = {
        share: [(cut(0, share, 0, 0)(each), cut(share, 0, 0, 0)(each)) for each in edged]
        for share in (0.05, 0.08, 0.12)
    }
    places, lens = range(len(images)), Lens()
    scenes = [Image.fromarray(render(seed, 600, 400, lens)) for seed in range(100)]
    return {
        "burst: framing moved by 8 %": pans[0.08],
        "burst: framing moved by 12 %": pans[0.12],
        "burst: framing moved by 5 %, both ways": [
            (cut(0, 0.05, 0, 0.05)(x), cut(0.05, 0, 0.05, 0)(x)) for x in edged
        ],
        "burst: subject of 12 % moved": [moved_subject(images, at, 0.12) for at in places],
        "burst: subject of 16 % moved": [moved_subject(images, at, 0.16) for at in places],
        "burst: subject of 20 % moved": [moved_subject(images, at, 0.20) for at in places],
        **{
            f"burst: subject of {percent} % {what}": [
                come_and_gone(images, at, percent / 100, is_other) for at in places
            ]
            for is_other, what in ((False, "appeared"), (True, "replaced"))
            for percent in (16, 20, 30, 40)
        },
        **{
            f"burst: subject of {percent} % appeared, exposure x {factor}": [
                (first, ImageEnhance.Brightness(second).enhance(factor))
                for first, second in (come_and_gone(images, at, percent / 100) for at in places)
            ]
            for percent in (16, 20)
            for factor in (0.8, 1.2)
        },
        "panorama: halves that overlap by 40 %": [(cut(0, 0.3, 0, 0)(x), cut(0.3, 0, 0, 0)(x)) for x in edged],
        "same sky, other clouds": [
            (sky(2 * at, (2, 8)[at % 2]), sky(2 * at + 1, (2, 8)[at % 2])) for at in range(120)
        ],
        "same meadow, other grass": [
            (meadow(2 * at, (0.8, 1.3)[at % 2]), meadow(2 * at + 1, (0.8, 1.3)[at % 2])) for at in range(120)
        ],
        "same lens, other scene": list(zip(scenes[::2], scenes[1::2], strict=True)),
        "flat pictures": [(flat(2 * at), flat(2 * at + 1)) for at in range(100)],
        "no claim: framing moved by 5 %": pans[0.05],
        "no claim: framing moved by 8 %, plain edges": [(cut(0, 0.08, 0, 0)(x), cut(0.08, 0, 0, 0)(x)) for x in plain],
        "no claim: subject of 8 % moved": [moved_subject(images, at, 0.08) for at in places],
        **{
            f"no claim: subject of {percent} % appeared": [come_and_gone(images, at, percent / 100) for at in places]
            for percent in (8, 12)
        },
        "no claim: subject of 12 % replaced": [come_and_gone(images, at, 0.12, is_other=True) for at in places],
        "no claim: same moon, other spots": [(moon(2 * at), moon(2 * at + 1)) for at in range(20)],
        "no claim: same form, other face and name": [(card(2 * at), card(2 * at + 1)) for at in range(20)],
    }  # fmt: skip
