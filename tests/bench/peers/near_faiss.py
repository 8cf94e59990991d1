"""Faiss looks for near hashes: FOLDER (hashes.npy, to which pairs.npy is written), bits, queries, threads."""

import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np

folder, most, queries, threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
words = np.load(folder / "hashes.npy")
data = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
faiss.omp_set_num_threads(threads)
index = faiss.IndexBinaryFlat(data.shape[1] * 8)
index.add(data)
index.range_search(data[:100], most + 1)
wall_s, cpu_s = time.perf_counter(), time.process_time()
limits, distances, others = index.range_search(data[:queries], most + 1)  # less than, not at most
wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
firsts = np.repeat(np.arange(queries), np.diff(limits.astype(np.int64)))
np.save(folder / "pairs.npy", np.stack([firsts, others.astype(np.int64), distances.astype(np.int64)]))
print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s}))
