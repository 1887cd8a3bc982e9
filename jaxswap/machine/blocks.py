"""Looking at all rows of a 2 MiB block at once, for what may lie far from the page in question."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxswap.machine import rows
from jaxswap.machine.state import ORDER, PLANES, Flag, Lane, MachineState, Mask, Plane
from jaxswap.swaptable import bits
from jaxswap.swaptable.bits import Bits

_ROW = np.arange(16, dtype=np.int32)[:, None] * PLANES


def look[T](state: MachineState, page: Lane, see: Callable[..., T], *wanted: Plane) -> tuple[T, MachineState]:
    """What `see` makes of some planes of the block that holds a page of the region, each a set of pages of
    the block."""
    start = (page >> 9) * (16 * PLANES)
    if page.shape == (1,):
        at = lax.squeeze(start, (0,)).astype(jnp.uint32)
        block = lax.dynamic_slice(state.rows, (at, np.uint32(0)), (16 * PLANES, 1)).reshape(16, PLANES, 1)
        found = [block[:, plane] for plane in wanted]
    else:
        lane = jnp.arange(page.shape[0])[None]
        found = [state.rows[start[None] + _ROW + plane, lane] for plane in wanted]
    # Who writes to the rows after this does so after the look.
    seen, rows = lax.optimization_barrier((see(*found), state.rows))
    return seen, replace(state, rows=rows)


def planes(state: MachineState, page: Lane, wanted: Sequence[Plane]) -> tuple[list[Bits], MachineState]:
    """Some planes of the block that holds a page of the region."""
    return look(state, page, lambda *found: list(found), *wanted)


def folio(state: MachineState, page: Lane, order: Lane) -> tuple[Bits, MachineState]:
    """The mapped pages of the folio of 2^order around a present page."""

    def see(present: Bits, *numbers: Bits) -> Bits:
        base = (page & 511) >> order << order
        members = bits.span(base, base + (jnp.int32(1) << order)) & present
        for i, number in enumerate(numbers):
            members = members & (number ^ rows.only(rows.ALL, (order >> i) & 1 == 0)[None])
        return members

    return look(state, page, see, Plane.PRESENT, *ORDER)


def members(state: MachineState, page: Lane, order: Lane, broken: Flag) -> Bits:
    """The mapped pages of a folio that has lost some, as pages of its block."""
    none = jnp.zeros((16, *page.shape), jnp.uint32)
    return lax.cond(jnp.any(broken), lambda: folio(state, page, order)[0], lambda: none)


def in_row(members: Bits, at: Lane, order: Lane, broken: Flag) -> Mask:
    """The pages of a folio in the row of `at`."""
    return rows.once(jnp.where(broken, bits.word(members, (at >> 5) & 15), rows.folio(at, order)))
