"""The exact search for near hashes beside faiss: all pairs of a million that differ in few bits.

Hashes at random, and hashes that lie in clusters (as pictures of one kind do), both with planted pairs at every
distance. Faiss runs in an environment of its own, made on first use. It compares all with all, so it gets a stated
share of the queries, and its time is scaled; its pairs for these queries must be ours, to the bit.

    python tests/bench/near_pairs.py                     # a million hashes of 256 bits up to 31, and of 64 bits up to 7
    python tests/bench/near_pairs.py --hashes 100000 --share 1
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import numpy.typing as npt
from acquire.contenders import PEERS, peers_python
from acquire.table import markdown

from tasks.duplicates.candidates import near_pairs

Words = npt.NDArray[np.uint64]
THREADS = 2
PLANTED = 50  # pairs at each distance
CLUSTER = 20  # hashes around one centre, a twelfth of whose bits differ
HEAD = ["hashes", "bits", "up to", "contender", "wall", "CPU", "pairs"]


def flipped(rng: np.random.Generator, words: Words, counts: npt.NDArray[np.int64]) -> Words:
    """``words`` with ``counts`` bits of each changed."""
    ranks = rng.random((len(words), 64 * words.shape[1]), dtype=np.float32).argsort(axis=1).argsort(axis=1)
    return words ^ np.packbits(ranks < counts[:, None], axis=1).view(np.uint64)


def hashes(kind: str, size: int, words: int, most: int) -> Words:
    """``size`` hashes of ``words`` words, with planted pairs at each distance up to two above ``most``."""
    rng = np.random.default_rng(0)
    if kind == "random":
        result = rng.integers(0, 2**64, (size, words), dtype=np.uint64)
    else:
        centres = rng.integers(0, 2**64, (-(-size // CLUSTER), words), dtype=np.uint64)
        result = np.repeat(centres, CLUSTER, axis=0)[:size]
        for start in range(0, size, 50_000):
            part = slice(start, start + 50_000)
            result[part] = flipped(rng, result[part], np.full(len(result[part]), 64 * words // 12))
    planted = rng.permutation(size)[: 2 * PLANTED * (most + 3)].reshape(2, -1)
    result[planted[1]] = flipped(rng, result[planted[0]], np.repeat(np.arange(most + 3), PLANTED))
    return result


def ours(words: Words, most: int) -> tuple[float, float, npt.NDArray[np.int64]]:
    """Wall and CPU seconds, and the pairs (first, second, bits), each once, in order."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    batches = near_pairs(words, words, most)
    found = [np.stack([first, second, bits])[:, first < second] for first, second, bits in batches]
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    pairs = np.concatenate(found, axis=1).astype(np.int64)
    return wall_s, cpu_s, pairs[:, np.lexsort(pairs[::-1])]


def theirs(python: Path, words: Words, most: int, queries: int) -> tuple[float, float, npt.NDArray[np.int64]]:
    """The same by faiss, of the first ``queries`` hashes against all."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "hashes.npy", words)
        driver = [str(python), str(PEERS / "near_faiss.py"), folder, str(most), str(queries), str(THREADS)]
        threads = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        told = subprocess.run(driver, check=True, capture_output=True, text=True, env=threads)
        pairs = np.load(Path(folder) / "pairs.npy")
    figures = json.loads(told.stdout)
    pairs = pairs[:, pairs[0] < pairs[1]]
    return figures["wall_s"], figures["cpu_s"], pairs[:, np.lexsort(pairs[::-1])]


def compared(python: Path, kind: str, words: Words, most: int, share: float) -> list[list[str]]:
    """One line for each contender; raises AssertionError if their pairs differ."""
    queries = round(share * len(words))
    wall_s, cpu_s, mine = ours(words, most)
    peer_wall_s, peer_cpu_s, its = theirs(python, words, most, queries)
    assert np.array_equal(mine[:, mine[0] < queries], its), "the pairs differ"
    bits, what = str(64 * words.shape[1]), f"{len(words):,} {kind}"
    note = "" if share == 1 else f" (x {1 / share:g}: {queries:,} queries)"
    return [
        [what, bits, str(most), "ours", f"{wall_s:.1f} s", f"{cpu_s:.1f} s", f"{mine.shape[1]:,}"],
        [
            what, bits, str(most), f"faiss IndexBinaryFlat{note}", f"{peer_wall_s / share:.1f} s",
            f"{peer_cpu_s / share:.1f} s", f"{its.shape[1]:,}, the same",
        ],
    ]  # fmt: skip


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hashes", type=int, default=1_000_000)
    options.add_argument("--share", type=float, default=0.02, help="of the queries that faiss is asked")
    options.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "darkroom-near-peers")
    options.add_argument("--kinds", nargs="+", default=["random", "clustered"])
    options.add_argument("--words", nargs="+", type=int, default=[4, 1])
    asked = options.parse_args()
    python, lines = peers_python(asked.peers, "near.txt"), []
    for kind in asked.kinds:
        for words in asked.words:
            most = 8 * words - 1
            lines += compared(python, kind, hashes(kind, asked.hashes, words, most), most, asked.share)
            print(lines[-2:], file=sys.stderr, flush=True)
    print(markdown(HEAD, lines))


if __name__ == "__main__":
    main()
