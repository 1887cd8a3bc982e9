"""Random tables for the tests of swaptable: fixed shapes, drawn contents."""

from __future__ import annotations

import numpy as np

from jaxswap.swaptable.entry import SwapTable, encode, make_table

CLUSTERS = 4


def random_words(rng: np.random.Generator, clusters: int = CLUSTERS) -> np.ndarray:
    """Mostly shadows, damaged in slots and in aligned runs, so that checks of every order pass and fail."""
    shape = (clusters, 512)
    kind = np.ones(shape, np.uint32)
    count = rng.choice(np.array([1, 2, 14, 15], np.uint32), shape)
    zero = np.zeros(shape, bool)
    for row in range(clusters):
        style = rng.integers(0, 8)
        if style == 0:
            kind[row] = 0
            continue
        if style == 1:
            kind[row] = rng.choice(4, 512, p=[0.1, 0.6, 0.2, 0.1])
            zero[row] = rng.random(512) < 0.1
            continue
        for _ in range(rng.integers(0, 8)):
            order = int(rng.integers(0, 7))
            start = int(rng.integers(0, 512 >> order)) << order
            run = slice(start, start + (1 << order))
            match rng.integers(0, 5):
                case 0:
                    kind[row, run] = 2
                case 1:
                    kind[row, run] = 2
                    count[row, run] = 0
                case 2:
                    kind[row, run] = 0
                case 3:
                    zero[row, run] = True
                case 4:
                    kind[row, start] = 3
    value = rng.integers(0, 1 << 25, shape, dtype=np.uint32)
    return np.asarray(encode(kind, count, zero, value))


def random_ids(rng: np.random.Generator, clusters: int = CLUSTERS) -> np.ndarray:
    """One id a cluster, other ids in a few aligned runs."""
    ids = np.repeat(rng.integers(0, 3, clusters).astype(np.uint16)[:, None], 512, axis=1)
    for row in range(clusters):
        for _ in range(rng.integers(0, 4)):
            order = int(rng.integers(0, 9))
            start = int(rng.integers(0, 512 >> order)) << order
            ids[row, start : start + (1 << order)] = rng.choice(np.array([0, 1, 2, 65535], np.uint16))
    return ids


def random_table(seed: int, clusters: int = CLUSTERS) -> SwapTable:
    rng = np.random.default_rng(seed)
    words = random_words(rng, clusters)
    used = words.any(axis=1)
    return make_table(words, random_ids(rng, clusters), used | (rng.random(clusters) < 0.3))


def compilations(function) -> int:
    """Programs a jitted function holds."""
    return function._cache_size()
