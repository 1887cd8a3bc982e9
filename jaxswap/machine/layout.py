"""The VMAs of the process at one operation, in the order of their pages."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int32

from jaxswap.machine.program import Program
from jaxswap.machine.state import Flag, Lane
from jaxswap.swaptable.lanes import repeat


class Layout(NamedTuple):
    """Rows `first` .. `first + count - 1` of a program's VMAs. A VMA is known by its row."""

    starts: Int32[Array, " vmas"]
    ends: Int32[Array, " vmas"]
    first: Int32[Array, ""]
    count: Int32[Array, ""]

    def has(self, vma: Lane) -> Flag:
        """Whether there is a VMA with this row."""
        return vma < self.first + self.count

    def start(self, vma: Lane) -> Lane:
        """Its first page."""
        return jnp.take(self.starts, vma, mode="clip")

    def end(self, vma: Lane) -> Lane:
        """The page behind its last."""
        return jnp.take(self.ends, vma, mode="clip")

    def find(self, page: Lane) -> Lane:
        """The first VMA that ends behind a page."""
        low = jnp.broadcast_to(self.first, page.shape)

        def halve(carry: tuple[Lane, Lane]) -> tuple[Lane, Lane]:
            low, high = carry
            middle = (low + high) >> 1
            behind = self.end(middle) > page
            return jnp.where(behind | (low >= high), low, middle + 1), jnp.where(behind, middle, high)

        return repeat(lambda carry: carry[0] < carry[1], halve, (low, low + self.count))[0]


def layout_of(ops: Program, i: Int32[Array, ""]) -> Layout:
    """The VMAs at operation i."""
    return Layout(ops.vma_start, ops.vma_end, ops.first_vma[i], ops.vmas[i])
