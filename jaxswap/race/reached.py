"""States found so far, each with the number it was given: a hash table of whole arrays at a time."""

import numpy as np
from jaxtyping import Int, UInt64

Keys = UInt64[np.ndarray, "n words"]

_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


class Reached:
    """Packed states in the order in which they were added."""

    def __init__(self, words: int) -> None:
        self.keys = np.empty((1 << 12, words), np.uint64)
        self.n = 0
        self.table = np.full(1 << 14, -1, np.int32)

    def add(self, keys: Keys) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
        """Number of each state; and for those not met before, in the order of their new numbers, where in
        ``keys`` each stands first.
        """
        mixed = _mix(keys)
        order = np.argsort(mixed, kind="stable")
        head = np.ones(len(keys), bool)
        head[1:] = mixed[order[1:]] != mixed[order[:-1]]
        # states of one hash are told apart by the words themselves
        clash = ~head
        clash[1:] &= (keys[order[1:]] != keys[order[:-1]]).any(1)
        if clash.any():
            _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            inverse = inverse.reshape(-1)
        else:
            first = order[head]
            inverse = np.empty(len(keys), np.int64)
            inverse[order] = np.cumsum(head) - 1
        numbers = self._find(keys[first], mixed[first])
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(first[new], kind="stable")]
        numbers[new] = self.n + np.arange(len(new))
        self._append(keys[first[new]], mixed[first[new]])
        return numbers[inverse], first[new]

    def _find(self, keys: Keys, mixed: UInt64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        numbers = np.full(len(keys), -1, np.int64)
        left = np.arange(len(keys))
        place = (mixed & np.uint64(len(self.table) - 1)).astype(np.int64)
        while left.size:
            held = self.table[place[left]]
            left, held = left[held >= 0], held[held >= 0]
            same = (self.keys[held] == keys[left]).all(1)
            numbers[left[same]] = held[same]
            left = left[~same]
            place[left] = (place[left] + 1) & (len(self.table) - 1)
        return numbers

    def _append(self, keys: Keys, mixed: UInt64[np.ndarray, "n"]) -> None:
        total = self.n + len(keys)
        if total > len(self.keys):
            room = np.empty((max(total, 2 * len(self.keys)), self.keys.shape[1]), np.uint64)
            room[: self.n] = self.keys[: self.n]
            self.keys = room
        self.keys[self.n : total] = keys
        numbers = np.arange(self.n, total, dtype=np.int32)
        self.n = total
        if 2 * total > len(self.table):
            self.table = np.full(1 << (4 * total).bit_length(), -1, np.int32)
            numbers = np.arange(total, dtype=np.int32)
            mixed = _mix(self.keys[:total])
        self._place(numbers, mixed)

    def _place(self, numbers: Int[np.ndarray, "n"], mixed: UInt64[np.ndarray, "n"]) -> None:
        place = (mixed & np.uint64(len(self.table) - 1)).astype(np.int64)
        while numbers.size:
            free = self.table[place] < 0
            self.table[place[free]] = numbers[free]
            left = self.table[place] != numbers
            numbers, place = numbers[left], (place[left] + 1) & (len(self.table) - 1)


def _mix(keys: Keys) -> UInt64[np.ndarray, "n"]:
    mixed = np.zeros(len(keys), np.uint64)
    for word in range(keys.shape[1]):
        mixed = (mixed ^ keys[:, word]) * _ODD[word % len(_ODD)]
        mixed ^= mixed >> np.uint64(29)
    return mixed
