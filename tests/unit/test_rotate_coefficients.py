"""Turned JPEGs, read coefficient by coefficient with a decoder of our own that shares no line with what turns them."""

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import turbojpeg
from PIL import Image

from tasks.pictures import imaging
from tasks.pictures.containers import blocks_of, chunks
from tasks.pictures.lossless import rotate_exactly

TURNS = range(2, 9)
ZIGZAG = sorted(range(64), key=lambda at: (sum(divmod(at, 8)), at if sum(divmod(at, 8)) % 2 else -at))
Grid = npt.NDArray[np.int64]  # rows of blocks x columns of blocks x 8 x 8


class Component(NamedTuple):
    """One colour plane: its sampling factors, its table of quantisation, its blocks."""

    horizontal: int
    vertical: int
    table: npt.NDArray[np.int64]
    blocks: Grid


class Bits:
    """The entropy-coded bits of a scan, without stuffing."""

    def __init__(self, scan: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in scan.replace(b"\xff\x00", b"\xff"))
        self.at = 0

    def read(self, count: int) -> int:
        self.at += count
        return int(self.bits[self.at - count : self.at] or "0", 2)

    def signed(self, count: int) -> int:
        """T.81 F.2.2.1, EXTEND."""
        value = self.read(count)
        return value if count == 0 or value >> (count - 1) else value - (1 << count) + 1

    def symbol(self, codes: dict[str, int]) -> int:
        for end in range(self.at + 1, self.at + 17):
            if self.bits[self.at : end] in codes:
                code = self.bits[self.at : end]
                self.at = end
                return codes[code]
        raise AssertionError("no code matches")


def huffman(segment: bytes) -> dict[int, dict[str, int]]:
    """T.81 annex C: codes of each table of a DHT segment."""
    tables: dict[int, dict[str, int]] = {}
    while segment:
        number, lengths, segment = segment[0], segment[1:17], segment[17:]
        code, codes, used = 0, tables.setdefault(number, {}), 0
        for length, count in enumerate(lengths, start=1):
            for value in segment[used : used + count]:
                codes[f"{code:0{length}b}"] = value
                code += 1
            used += count
            code <<= 1
        segment = segment[used:]
    return tables


def block(bits: Bits, dc: dict[str, int], ac: dict[str, int], before: int) -> npt.NDArray[np.int64]:
    """T.81 F.2.2: one block of 8 x 8 coefficients."""
    zigzag = [0] * 64
    zigzag[0] = before + bits.signed(bits.symbol(dc))
    at = 1
    while at < 64:
        run, size = divmod(bits.symbol(ac), 16)
        if size == 0 and run < 15:
            break
        at += run
        zigzag[at] = bits.signed(size)
        at += 1
    natural = np.zeros(64, np.int64)
    natural[ZIGZAG] = zigzag
    return natural.reshape(8, 8)


def components(data: bytes) -> list[Component]:
    """The coefficients of a JPEG, by way of a baseline file with one scan."""
    data = turbojpeg.transform(data, turbojpeg.OP.NONE, copynone=True, progressive=False)
    tables: dict[int, npt.NDArray[np.int64]] = {}
    codes: dict[int, dict[str, int]] = {}
    frame, end = b"", 0
    for kind, start, stop in chunks(data):
        body, end = data[start:stop], stop
        if kind == b"\xdb":
            for at in range(0, len(body), 65):
                natural = np.zeros(64, np.int64)
                natural[ZIGZAG] = list(body[at + 1 : at + 65])
                tables[body[at] & 15] = natural.reshape(8, 8)
        elif kind == b"\xc4":
            codes |= huffman(body)
        elif kind in {b"\xc0", b"\xc1"}:
            frame = body
    header = data[end + 4 : end + 2 + int.from_bytes(data[end + 2 : end + 4], "big")]
    scan = data[end + 2 + int.from_bytes(data[end + 2 : end + 4], "big") : data.rindex(b"\xff\xd9")]
    return decoded(frame, header, tables, codes, Bits(scan))


def decoded(
    frame: bytes, header: bytes, tables: dict[int, Any], codes: dict[int, dict[str, int]], bits: Bits
) -> list[Component]:
    """T.81 A.2: the blocks of each component out of the units of one scan; padding at the edges is cut off."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    planes = [(at >> 4, at & 15, tables[table]) for at, table in zip(frame[7::3], frame[8::3], strict=True)]
    if len(planes) == 1:
        planes = [(1, 1, planes[0][2])]
    widest, tallest = max(plane[0] for plane in planes), max(plane[1] for plane in planes)
    columns, rows = -(-width // (8 * widest)), -(-height // (8 * tallest))
    grids = [np.zeros((rows * v, columns * h, 8, 8), np.int64) for h, v, _ in planes]
    before = [0] * len(planes)
    for unit in range(rows * columns):
        row, column = divmod(unit, columns)
        for number, (h, v, _) in enumerate(planes):
            choice = header[2 + 2 * number]
            for inner in range(h * v):
                y, x = divmod(inner, h)
                found = block(bits, codes[choice >> 4], codes[16 + (choice & 15)], before[number])
                before[number] = int(found[0, 0])
                grids[number][row * v + y, column * h + x] = found
    return [Component(h, v, table, grid) for (h, v, table), grid in zip(planes, grids, strict=True)]


def turned(component: Component, op: int) -> Component:
    """What the component must be: blocks in their new places, transposed; odd frequencies of a flipped side negated."""
    signs = 1 - 2 * (np.arange(8) % 2)
    h, v, table, blocks = component
    if op in {5, 6, 7, 8}:
        h, v, table, blocks = v, h, table.T, blocks.transpose(1, 0, 3, 2)
    if op in {3, 4, 7, 8}:
        blocks = blocks[::-1] * signs[:, None]
    if op in {2, 3, 6, 7}:
        blocks = blocks[:, ::-1] * signs
    return Component(h, v, table, blocks)


KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": "4:4:4"}, "4:2:2": {"subsampling": "4:2:2"}, "4:2:0": {"subsampling": "4:2:0"},
    "4:1:1": {"subsampling": "4:1:1"}, "4:4:0": {"mode": "4:4:0"}, "progressive": {"progressive": True},
    "grey": {"mode": "L"}, "CMYK": {"mode": "CMYK"}, "restarts": {"restart_marker_rows": 1},
}  # fmt: skip


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    cells = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((96, 64), Image.Resampling.BICUBIC)
    if mode == "4:4:0":  # Pillow does not write it
        return bytes(simplejpeg.encode_jpeg(np.asarray(picture), 85, colorsubsampling="440"))
    out = io.BytesIO()
    picture.convert(mode).save(out, "JPEG", quality=85, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_coefficients_of_a_turned_jpeg_are_those_of_the_jpeg(kind: str) -> None:
    """Every coefficient of every component, and its quantisation, is there again in its new place, at every turn."""
    data = jpeg(**KINDS[kind])
    before = components(data)
    for op in TURNS:
        result = rotate_exactly(data, "JPEG", op)
        assert result is not None
        assert blocks_of(result).is_progressive == blocks_of(data).is_progressive
        for was, now in zip(before, components(result), strict=True):
            wanted = turned(was, op)
            assert (now.horizontal, now.vertical) == (wanted.horizontal, wanted.vertical)
            assert np.array_equal(now.table, wanted.table)
            assert np.array_equal(now.blocks, wanted.blocks)


def test_the_reader_reads_what_libjpeg_decodes() -> None:
    """The coefficients, inversely transformed, are the pixels of the grey picture, but for rounding."""
    data = jpeg("L")
    component = components(data)[0]
    frequency, place = np.mgrid[:8, :8]
    basis = np.cos(np.pi * frequency * (2 * place + 1) / 16) * np.where(frequency, 0.5, 8**-0.5)
    pixels = np.einsum("ux,rcuv,vy->rxcy", basis, component.blocks * component.table, basis).reshape(64, 96) + 128
    assert np.abs(pixels.clip(0, 255) - imaging.decode_grey(data, 9999)).max() <= 1
