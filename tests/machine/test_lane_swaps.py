"""Several swap devices of a lane: their text, their limits, the page map's types."""

import pytest

from jaxswap.errors import InputError
from jaxswap.machine import Lane
from jaxswap.machine.lane import swap_devices, swap_text
from jaxswap.machine.replay import replay_one
from jaxswap.swaptable.clusters import Device
from jaxswap.workload import parse_workload
from tests.machine.test_against_reference import run_reference
from tests.reference.machine import Machine
from tests.reference.slots import Device as PlainDevice


def test_devices_are_read_and_written() -> None:
    text = "8M pri 5, 8M, 20K"
    assert swap_devices(text) == (Device(2048, 5), Device(2048), Device(5))
    assert swap_text(swap_devices(text)) == text
    with pytest.raises(InputError, match="'8M prio 5' is no device"):
        swap_devices("8M prio 5")


@pytest.mark.parametrize(
    ("swaps", "what"),
    [
        ((Device(1),), "4096 bytes"),
        ((Device(512),) * 5, "5 devices"),
        ((Device(512, 40000),), "priority 40000"),
    ],
)
def test_devices_a_machine_cannot_have(swaps: tuple[Device, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        Lane(swaps=swaps).check()


@pytest.mark.parametrize("text", ["2M, 3M", "2M, 3M pri 5, 2500K, 1M"])
def test_the_page_map_tells_type_and_offset(text: str) -> None:
    lines = ["REGION 2048 plain", "FILL 0 700", "PAGEOUT 0 700", "FILL 700 1200", "PAGEOUT 700 1200"]
    lines += ["DONTNEED 100 300", "READN 650 100", "PAGEOUT 0 2048", "DUMP end"]
    workload, lane = parse_workload("\n".join(lines) + "\n"), Lane("64", swaps=swap_devices(text))
    mine = next(block[2] for block in replay_one(workload, lane).blocks if block[0] == "DUMP")
    machine = Machine(
        workload.npages,
        always=1 << 4,
        devices=[PlainDevice(device.slots, device.priority) for device in lane.devices],
        zero_pieces_take_slots=False,
        anon_vmas_part=False,
        gives_tables_back=False,
    )
    run_reference(workload, machine)
    pages = machine.processes[0].pages
    wanted = [(page.device, page.slot) if page.state == "swapped" else None for page in pages]
    found: list[tuple[int, int] | None] = []
    for state, start, length, kind, slot in mine:
        assert start == len(found)
        found += [(kind, slot + i) if state == "S" else None for i in range(length)]
    assert found == wanted
    assert len({place[0] for place in found if place}) > 1
