"""The reference machine under a memory limit, against what Linux 7.3.4 counted (classic LRU, 32 MiB)."""

from jaxswap.workload import parse_workload

from .machine import Machine
from .run import Runner

LIMIT = 8192
ORDER_4 = 1 << 4
SEQUENTIAL = """REGION 12288 plain
INIT
SEQ 0 12288 1 307 101
SEQ 0 12288 2 307 102
"""


def run(text: str, **options) -> Machine:
    """The machine after a workload."""
    workload = parse_workload(text)
    machine = Machine(workload.npages, limit=LIMIT, swap_slots=65536, **options)
    for _ in Runner(workload, machine).blocks():
        pass
    return machine


def test_a_plain_region_read_in_order_equals_the_kernel() -> None:
    """Every counter that the recording has; it holds for one page of the kernel's, not for none."""
    machine = run(SEQUENTIAL, always=ORDER_4, kernel_pages=1)
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
