"""SET on the reference machine: what it changes, and what is refused in one line."""

import pytest

from jaxswap.errors import InputError
from jaxswap.workload import parse_workload
from tests.reference.machine import Machine
from tests.reference.run import Runner

THP = "/sys/kernel/mm/transparent_hugepage"


def after(*lines: str) -> Machine:
    workload = parse_workload("\n".join(["REGION 1024 plain", *lines, "ECHO end"]) + "\n", "w.t")
    machine = Machine(1024, always=1 << 4)
    list(Runner(workload, machine).blocks())
    return machine


def test_sizes() -> None:
    machine = after(
        f"SET {THP}/hugepages-64kB/enabled inherit", f"SET {THP}/hugepages-2048kB/enabled madvise"
    )
    assert (machine.always, machine.inherit, machine.madvise) == (0, 1 << 4, 1 << 9)
    assert after(f"SET {THP}/enabled never").thp == "never"


def test_switches() -> None:
    machine = after(
        "SET /proc/sys/vm/page-cluster 0",
        "SET /sys/kernel/mm/swap/vma_ra_enabled false",
        "SET /sys/module/zswap/parameters/enabled Y",
        "SET /sys/module/zswap/parameters/enabled N",
    )
    assert (machine.page_cluster, machine.vma_readahead) == (0, False)
    assert (machine.zswap, machine.zswap_ever) == (False, True)


@pytest.mark.parametrize(
    "text",
    [
        "/sys/kernel/mm/lru_gen/enabled 0",
        f"{THP}/hugepages-8kB/enabled always",
        f"{THP}/hugepages-48kB/enabled always",
        f"{THP}/hugepages-64kB/enabled sometimes",
        f"{THP}/enabled inherit",
        "/proc/sys/vm/page-cluster 32",
        "/proc/sys/vm/page-cluster x",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        after(f"SET {text}")
    said = str(caught.value)
    assert said.startswith(f"w.t:2: SET {text}: the machine has ") and "\n" not in said
