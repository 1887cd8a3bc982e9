"""The reference machine under memory limits, against what Linux 7.3.4 counted."""

import functools
from pathlib import Path
from typing import Any

import pytest

from jaxswap.pressure import Cell
from jaxswap.validate import cells
from jaxswap.workload import parse_workload

from .machine import Machine
from .pressure import hold
from .run import Runner

DATA = Path(__file__).parents[1] / "data" / "recordings"
LIMIT = 8192
ORDER_4 = 1 << 4
SEQUENTIAL = """REGION 12288 plain
INIT
SEQ 0 12288 1 307 101
SEQ 0 12288 2 307 102
"""


HOT = """REGION 16384 huge
INIT
STATS init
HOT 0 4096 922 50000 307 401
STATS h1
HOT 0 4096 922 50000 307 402
STATS h2
HOT 8192 4096 922 50000 307 403
STATS h3
HOT 8192 4096 922 50000 307 404
"""


def run(text: str, **options) -> Machine:
    """The machine after a workload."""
    workload = parse_workload(text)
    settings: dict[str, Any] = {"limit": LIMIT, "swap_slots": 65536} | options
    machine = Machine(workload.npages, **settings)
    for _ in Runner(workload, machine).blocks():
        pass
    return machine


def test_a_plain_region_read_in_order_equals_the_kernel() -> None:
    """Every counter that the recording has; it holds for one page of the kernel's, not for none."""
    machine = run(SEQUENTIAL, always=ORDER_4)
    counted = {
        "pgmajfault": 24789,
        "pswpin": 36864,
        "pswpout": 40987,
        "pgscan": 89906,
        "memcg_max": 1823,
        "64kB/swpin": 805,
        "64kB/swpin_fallback": 473,
        "64kB/swpin_fallback_charge": 473,
        "64kB/anon_fault_fallback": 129,
        "64kB/swpout": 1358,
    }
    assert {name: machine.n[name] for name in counted} == counted


def test_first_touch_between_two_flushes_equals_the_kernel() -> None:
    """The lists are empty by the statistics, so reclaim costs nothing and takes less at a time."""
    machine = run("REGION 12288 huge\nINIT\n", flush=None)
    counted = {"pgscan": 12328, "pgsteal": 4153, "memcg_max": 125}
    assert {name: machine.n[name] for name in counted} == counted


@pytest.mark.parametrize(
    ("always", "workingset", "major", "events"), [(0, 232, 12236, 287), (ORDER_4, 224, 766, 257)]
)
def test_the_sequential_cell_of_the_multi_gen_lru(always, workingset, major, events) -> None:
    """These refaults find the working-set bit before the tier of such folios is protected and a generation
    passes: as many in three boots of the kernel.
    """
    text = "REGION 12288 huge\nINIT\nSEQ 0 12288 1 307 101\n"
    machine = run(text, always=always, lru="mglru")
    assert machine.n["workingset_activate_anon"] == workingset
    assert machine.n["pgmajfault"] == pytest.approx(major, rel=0.001, abs=1)
    assert machine.n["memcg_max"] == pytest.approx(events, abs=2)


def test_old_statistics_make_a_false_out_of_memory_kill() -> None:
    """Every folio is active, and the numbers of the last flush say that enough are inactive: nothing is
    scanned, nothing deactivated.
    """
    machine = run(HOT, always=ORDER_4, flush=1500)
    assert machine.oom
    assert machine.root.lists.inactive_nr == 0 < machine.root.lists.active_nr
    assert machine.swap.free_slots > LIMIT


def test_a_translation_in_the_tlb_hides_accesses_from_reclaim() -> None:
    """Pages that are accessed over and over look colder, so more of them are read back."""
    text = "REGION 4096 huge\nINIT\n" + "HOT 0 1024 922 20000 307 5\n" * 2
    seen, hidden = (run(text, limit=2048, switch=switch).n["pgmajfault"] for switch in (0, 2000))
    assert hidden > 1.02 * seen


@functools.cache
def stored() -> dict[str, Cell]:
    """The cells of the tree, by name."""
    return {cell.name: cell for cell in cells(DATA / "7.3.4" / "pressure")}


@pytest.mark.parametrize(
    "name",
    [
        "seqS-classic-64-swapmax16640K",  # folios that memory.swap.max refuses, split, refused again
        "seqS-mglru-64-swapmax16640K",  # killed with less than 64 slots left
        "uniS-classic-64-swapmax8M",  # killed with none left
        "uniS-classic-none-swappiness0",  # killed: nothing is scanned
        "uniS-mglru-none-swappiness0",
        "seqS-mglru-none-high24M",
        "cgroups-mglru-64",  # two cgroups, counted together
        "fragP-mglru-64-whole0",  # some thirty free blocks of 64 kB, of which it holds all in the end
        pytest.param("fragP-mglru-64-whole8M", marks=pytest.mark.slow),
        pytest.param("fragP-mglru-64-whole24M", marks=pytest.mark.slow),
        pytest.param("fragH-mglru-64-whole8M", marks=pytest.mark.slow),
        pytest.param("uniP-mglru-64-high24M", marks=pytest.mark.slow),
        pytest.param("uniP-mglru-64-always", marks=pytest.mark.slow),
        pytest.param("uniP-classic-64-high24M", marks=pytest.mark.slow),
        pytest.param("uniS-mglru-64-never", marks=pytest.mark.slow),
        pytest.param("uniS-classic-none-swappiness200", marks=pytest.mark.slow),
    ],
)
def test_a_recorded_cell(name: str) -> None:
    """Every counter of the comparison is inside its bounds, and only what the kernel killed is killed."""
    lines, outside = hold(stored()[name])
    assert not outside, "\n".join(lines)
