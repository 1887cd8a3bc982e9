"""The kernel's sort() as 6.12 has it (lib/sort.c, sort_r): a heapsort, so equals do not keep their order."""

from __future__ import annotations

from collections.abc import Callable


def heapsort[T](items: list[T], key: Callable[[T], int]) -> list[T]:
    """The items, ascending. The two largest leave the heap together; of equal children the right rises."""
    heap, size = list(items), len(items)

    def exchange(i: int, j: int) -> None:
        heap[i], heap[j] = heap[j], heap[i]

    def sink(at: int) -> None:
        """Restore the heap below `at`: down to a leaf along the larger children, then up to where it fits."""
        path = [at]
        while (right := 2 * path[-1] + 2) < size:
            path.append(right - (key(heap[right - 1]) > key(heap[right])))
        if right == size:
            path.append(size - 1)
        while len(path) > 1 and key(heap[at]) >= key(heap[path[-1]]):
            path.pop()
        moved = [heap[i] for i in path]
        for i, item in zip(path, moved[1:] + moved[:1], strict=True):
            heap[i] = item

    for at in reversed(range(size // 2)):
        sink(at)
    while size > 3:
        exchange(0, size - 1)
        second = 2 if key(heap[1]) <= key(heap[2]) else 1
        exchange(second, size - 2)
        size -= 2
        sink(second)
        sink(0)
    if size:
        exchange(0, size - 1)
    if size == 3 and key(heap[0]) > key(heap[1]):
        exchange(0, 1)
    return heap
