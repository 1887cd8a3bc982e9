"""The word of one swap slot, and a table of them.

The kernel keeps a 64-bit word a slot (mm/swap_table.h, Linux 7.2 / 7.3); here it is a uint32 with the same
fields in smaller widths. It is not bit-compatible with the kernel's word.

========  =====  ======================================================================================
bits      width  field
========  =====  ======================================================================================
31 .. 28  4      count, 0 .. 15; 15 means "15 or more" (the kernel's extend table is not kept)
27        1      zero flag: the page was all zero at write-out
26 .. 2   25     value: shadow or folio number, modulo 2**25 (wider values wrap; 0 is the empty shadow)
1 .. 0    2      kind: 0 free, 1 shadow (swapped out, not cached), 2 folio (in the swap cache), 3 bad
========  =====  ======================================================================================

A free word is 0 and a bad word is 3: all other fields are 0 in both. The memcg id of a slot is not in the
word but in an array of its own (uint16, 0 = none), as in the kernel's ``memcg_table``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Integer, UInt16, UInt32

from jaxswap.errors import InputError
from jaxswap.swaptable.geometry import CLUSTER

FREE, SHADOW, FOLIO, BAD = 0, 1, 2, 3
KIND_MASK = 3
VALUE_SHIFT = 2
VALUE_BITS = 25
VALUE_MAX = (1 << VALUE_BITS) - 1
ZERO_SHIFT = 27
COUNT_SHIFT = 28
COUNT_MAX = 15
FLAG_BITS = np.uint32(0xF800_0000)
"""Count and zero flag: what survives when a folio enters or leaves the swap cache."""
BAD_WORD = BAD
MAX_SLOTS = 1 << 31


class Entry(NamedTuple):
    """Fields of slot words, all of one shape."""

    kind: UInt32[Array, "..."]
    count: UInt32[Array, "..."]
    zero: Bool[Array, "..."]
    value: UInt32[Array, "..."]


def encode(
    kind: ArrayLike,
    count: ArrayLike = 0,
    zero: ArrayLike = False,
    value: ArrayLike = 0,
) -> UInt32[Array, "..."]:
    """Words from fields, which broadcast: integers, and booleans for ``zero``.

    Counts above 15 become 15, values wrap at 2**25, free and bad words carry no fields.
    """
    kind = jnp.asarray(kind).astype(jnp.uint32) & KIND_MASK
    count = jnp.minimum(jnp.asarray(count).astype(jnp.uint32), COUNT_MAX)
    zero = jnp.asarray(zero).astype(bool).astype(jnp.uint32)
    value = jnp.asarray(value).astype(jnp.uint32) & VALUE_MAX
    fields = (count << COUNT_SHIFT) | (zero << ZERO_SHIFT) | (value << VALUE_SHIFT)
    return jnp.where((kind == SHADOW) | (kind == FOLIO), fields, 0) | kind


def decode(words: ArrayLike) -> Entry:
    """Fields of uint32 words, elementwise."""
    words = jnp.asarray(words, jnp.uint32)
    return Entry(
        kind=words & KIND_MASK,
        count=words >> COUNT_SHIFT,
        zero=((words >> ZERO_SHIFT) & 1).astype(bool),
        value=(words >> VALUE_SHIFT) & VALUE_MAX,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SwapTable:
    """All slots of a device. Make one with :func:`make_table`.

    ``words`` and ``memcg`` hold one row of 512 a cluster. ``has_table`` says which clusters have a table at
    all: in the kernel a free cluster has none, and a check that meets one answers -ENOENT.
    """

    words: UInt32[Array, "clusters 512"]
    memcg: UInt16[Array, "clusters 512"]
    has_table: Bool[Array, "clusters"]

    @property
    def clusters(self) -> int:
        return self.words.shape[0]

    @property
    def slots(self) -> int:
        """Slots, those that pad the last cluster (bad ones) included."""
        return self.words.shape[0] * CLUSTER


@jax.jit
def _defects(words: UInt32[Array, "clusters 512"]) -> tuple[Bool[Array, ""], Integer[Array, ""]]:
    kind = words & KIND_MASK
    wrong = ((kind == FREE) | (kind == BAD)) & (words != kind)
    wrong = wrong | ((kind == SHADOW) & (words >> COUNT_SHIFT == 0))
    return jnp.any(wrong), jnp.argmax(wrong)


def _rows(name: str, values, dtype, slots: int | None, clusters: int, pad: int) -> Array:
    given = np.asarray(values) if not isinstance(values, jax.Array) else values
    if given.dtype != dtype:
        raise InputError(f"{name}: need dtype {np.dtype(dtype)}, got {given.dtype}; convert it with .astype")
    if (given.ndim == 2 and given.shape[1] != CLUSTER) or given.ndim not in (1, 2):
        raise InputError(f"{name}: need shape [slots] or [clusters, {CLUSTER}], got {list(given.shape)}")
    if slots is not None and given.size != slots:
        raise InputError(f"{name}: has {given.size} slots, words has {slots}; give one id a slot")
    flat = jnp.asarray(given).reshape(-1)
    flat = jnp.pad(flat, (0, clusters * CLUSTER - flat.size), constant_values=pad)
    return flat.reshape(clusters, CLUSTER)


def make_table(words, memcg=None, has_table=None) -> SwapTable:
    """A checked table from slot words.

    words: uint32 [slots] or [clusters, 512]; slots that lack to a whole cluster become bad slots, as beyond
    the end of a device. memcg: uint16 of the same size (default: all 0). has_table: bool [clusters] (default:
    clusters with a slot that is not free). InputError on another dtype or shape, on words that :func:`encode`
    cannot make, on a shadow with count 0 (the kernel frees such a slot), and where has_table denies a cluster
    that is in use.
    """
    given = words if isinstance(words, jax.Array) else np.asarray(words)
    if given.size == 0 or given.size > MAX_SLOTS:
        raise InputError(f"words: need 1 to 2**31 slots, got {given.size}")
    clusters = -(-given.size // CLUSTER)
    rows = _rows("words", given, np.uint32, None, clusters, BAD_WORD)
    wrong, where = _defects(rows)
    if bool(wrong):
        slot = int(where)
        word = int(rows[slot // CLUSTER, slot % CLUSTER])
        raise InputError(f"words: slot {slot} holds {word:#010x}, no slot word; make words with entry.encode")
    if memcg is None:
        ids = jnp.zeros((clusters, CLUSTER), jnp.uint16)
    else:
        ids = _rows("memcg", memcg, np.uint16, given.size, clusters, 0)
    used = jnp.any(rows != 0, axis=1)
    if has_table is None:
        return SwapTable(rows, ids, used)
    flags = has_table if isinstance(has_table, jax.Array) else np.asarray(has_table)
    if flags.dtype != np.bool_ or flags.shape != (clusters,):
        raise InputError(f"has_table: need bool [{clusters}], got {flags.dtype} {list(flags.shape)}")
    flags = jnp.asarray(flags)
    denied = used & ~flags
    if bool(jnp.any(denied)):
        raise InputError(f"has_table: cluster {int(jnp.argmax(denied))} has slots in use but no table")
    return SwapTable(rows, ids, flags)
