"""The parts of an exploration: packing, the table of states, the check, starts that are alike."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxswap.race
from jaxswap.errors import InputError
from jaxswap.race import Actor, explore, likeness, starts
from jaxswap.race.reached import Reached
from jaxswap.race.request import request_of
from jaxswap.race.state import IN_FOLIO, PCS, SHADOW, Layout, States, unpack
from jaxswap.race.steps import Steps
from jaxswap.swaptable import add_check, encode, make_table
from jaxswap.swaptable.forms import MERGED

START = (Actor("fault", 0, 0b111), Actor("fault", 5, 0b1111), Actor("shmem", 2, 0b10))


@pytest.mark.parametrize(("actors", "slots"), [(1, 1), (2, 4), (3, 8), (4, 16)])
def test_a_packed_state_comes_back(actors, slots):
    layout = Layout(actors, slots)
    rng = np.random.default_rng(actors)
    most = np.array([(1 << bits) - 1 for bits in layout.bits])
    matrix = (rng.integers(0, 256, (len(layout.bits), 500)) & most[:, None]).astype(np.uint8)
    packed = States(layout, matrix).pack()
    assert packed.shape == (500, layout.words)
    np.testing.assert_array_equal(unpack(layout, packed).matrix, matrix)


def test_a_row_has_bits_for_all_it_can_hold():
    layout = Layout(4, 16)
    biggest = States(layout, np.array([[(1 << bits) - 1] for bits in layout.bits], np.uint8))
    assert (biggest.slots >= IN_FOLIO + 3).all() and (biggest.pc >= len(PCS) - 1).all()
    assert (biggest.mask >= 0b11111).all() and (biggest.order >= 4).all() and (biggest.found >= 4).all()
    assert (biggest.refs >= 1 + 2 * 16 + 3).all() and (biggest.ptl >= 4).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=12), st.booleans())
def test_states_are_numbered_as_a_dict_would(levels, same_hash):
    """same_hash: words of which the table's hash tells few apart."""
    reached, known = Reached(2), {}
    for level in levels:
        low = np.array(level, np.uint64)
        keys = np.stack([low % 3, low // 3] if same_hash else [low, low * 0], axis=1).astype(np.uint64)
        numbers, new = reached.add(keys)
        fresh = []
        for at, key in enumerate(map(tuple, keys.tolist())):
            if key not in known:
                known[key] = len(known)
                fresh.append(at)
        assert numbers.tolist() == [known[key] for key in map(tuple, keys.tolist())]
        assert new.tolist() == fresh
    assert reached.n == len(known)


def test_the_table_grows_past_its_first_size():
    reached = Reached(1)
    keys = np.random.default_rng(1).permutation(50_000).astype(np.uint64)[:, None]
    for part in np.split(keys, 10):
        _, new = reached.add(part)
        assert len(new) == len(part)
    again, new = reached.add(keys)
    assert (again == np.arange(50_000)).all() and not len(new)


def test_states_whose_hashes_clash_are_told_apart(monkeypatch):
    monkeypatch.setattr("jaxswap.race.reached._mix", lambda keys: keys[:, 0] // np.uint64(7))
    reached = Reached(1)
    keys = np.array([[3], [5], [3], [20], [5]], np.uint64)
    numbers, new = reached.add(keys)
    assert numbers.tolist() == [0, 1, 0, 2, 1] and new.tolist() == [0, 1, 3]
    assert reached.add(keys[::-1].copy())[0].tolist() == [1, 2, 0, 1, 0]


def test_the_check_is_that_of_the_swap_table():
    rng = np.random.default_rng(2)
    steps = Steps(MERGED, START, 8)
    n = 400
    s = States(steps.layout, np.zeros((len(steps.layout.bits), n), np.uint8))
    style = rng.random((8, n))
    s.slots[:] = np.where(style < 0.85, SHADOW + 1, np.where(style < 0.95, IN_FOLIO, 0))
    s.counts[:] = np.where(s.slots == 0, 0, np.where(s.slots == IN_FOLIO, rng.integers(0, 2, (8, n)), 1))
    words = np.zeros((n, 512), np.uint32)
    words[:, :8] = np.asarray(encode(np.where(s.slots >= IN_FOLIO, 2, s.slots > 0), s.counts)).T
    table = make_table(words, has_table=np.ones(n, bool))
    for a, actor in enumerate(START):
        s.order[a] = rng.integers(0, 4, n)
        slots = np.arange(n) * 512 + actor.target
        expected = np.asarray(add_check(table, slots, s.order[a].astype(np.int32)))
        found = steps.add_check(s, a)
        np.testing.assert_array_equal(found, expected)
        assert set(found.tolist()) == {0, -2, -16, -17}


def test_starts_that_are_alike_have_as_many_states():
    rng = np.random.default_rng(3)
    counts: dict[tuple, set[int]] = {}
    for _ in range(14):
        fault, freed, zswap = (int(slot) for slot in rng.integers(0, 4, 3))
        start = (Actor("fault", fault, 0b101), Actor("freeing", freed & ~1, 0b10), Actor("zswap", zswap, 1))
        counts.setdefault(likeness(start), set()).add(explore(MERGED, [start], 4).states)
    assert all(len(found) == 1 for found in counts.values()) and len(counts) > 4


def test_the_number_of_a_cpu_does_not_matter():
    one = (Actor("fault", 0, 0b11), Actor("fault", 2, 0b11), Actor("freeing", 1, 1))
    other = (Actor("freeing", 2, 1), Actor("fault", 3, 0b11), Actor("fault", 0, 0b11))
    assert likeness(one) == likeness(other)
    assert explore(MERGED, [one], 4).states == explore(MERGED, [other], 4).states


def test_race_imports_the_swap_table_and_nothing_else_of_ours():
    rooms = set()
    for path in Path(jaxswap.race.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jaxswap."):
                rooms.add(str(node.module).split(".")[1])
    assert rooms == {"race", "swaptable", "errors", "toml"}


def test_kinds_and_orders_that_cannot_be_explored():
    for wrong in ((("swapon",), 4, 1), (("fault",) * 5, 4, 1), (("fault",), 3, 1), (("fault",), 4, 0b1000)):
        with pytest.raises(InputError):
            starts(*wrong)


def test_starts_are_all_that_differ():
    assert len(starts(("fault",), 8, 0b1111)) == 1
    assert len(starts(("fault", "fault"), 8, 0b1111)) == 4
    assert len(starts(("fault", "fault", "zswap"), 8, 0b1111)) == 13
    assert [start[0].orders for start in starts(("freeing",), 8, 0b1111)] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (("v9", 2, "each", 4, None), "--variant v9: is none of pre-phase4, v3"),
        (("merged", 5, "each", 4, None), "--cpus 5: with the other actors there may be 1 to 4"),
        (("merged", -1, "each", 4, None), "--cpus -1"),
        (("merged", 0, "none", 4, None), "--cpus 0"),
        (("merged", 2, "kswapd", 4, None), "--actors kswapd: 'kswapd' is none of readahead"),
        (("merged", 2, "", 4, None), "--actors : '' is none of"),
        (("merged", 2, "each", 5, None), "--slots 5: one aligned block has 1, 2, 4, 8 or 16"),
        (("merged", 2, "each", 4, "0..3"), r"--orders 0\.\.3: write order 0 and others up to 2"),
        (("merged", 2, "each", 4, "1,2"), "--orders 1,2: write order 0"),
        (("merged", 2, "each", 4, "all"), r"--orders all: write 0\.\.3 or 0,2,3"),
        (("merged", 2, "each", 4, "3..0"), r"--orders 3\.\.0: write 0\.\.3"),
    ],
)
def test_bad_requests_name_the_option(given_, message):
    with pytest.raises(InputError, match=message):
        request_of(*given_)


def test_a_request():
    request = request_of("merged", 2, "freeing,swapout", 8, "0,2..3".replace("..", ","))
    assert request.actors == (("fault", "fault", "freeing", "swapout"),) and request.orders == 0b1101
    assert len(request_of("merged", 1, "each", 4, None).actors) == 5
    assert request_of("merged", 1, "none", 4, None).actors == (("fault",),)
