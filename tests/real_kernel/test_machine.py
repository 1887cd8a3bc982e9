"""What a machine is made of: swap devices, sizes, the header of a recording, the guest's script."""

from dataclasses import replace

import pytest

from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.initrd import guest_script, named_cgroups
from experiments.real_kernel.machine import Machine, SwapDevice, parse_mthp, parse_swap, size_in_bytes


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("zram 128M", [SwapDevice("zram", "128M")]),
        ("zram 8M, zram 8M", [SwapDevice("zram", "8M"), SwapDevice("zram", "8M")]),
        ("zram 8M pri 5, zram 12340K pri 3", [SwapDevice("zram", "8M", 5), SwapDevice("zram", "12340K", 3)]),
        ("virtio 1G rotational", [SwapDevice("virtio", "1G", rotational=True)]),
        ("virtio 1G pri 0 discard", [SwapDevice("virtio", "1G", 0, discard=True)]),
    ],
)
def test_swap_devices(text: str, devices: list[SwapDevice]) -> None:
    parsed = parse_swap(text)
    assert list(parsed) == devices
    assert ", ".join(map(str, parsed)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a swap device"),
        ("zram", "not a swap device"),
        ("disk 8M", "not a swap device"),
        ("zram 8M,", "not a swap device"),
        ("zram 8T", "'8T' is not a size"),
        ("zram 5000", "whole 4 KiB pages"),
        ("zram 0M", "not a size"),
        ("zram 8M pri", "'pri' after zram 8M"),
        ("zram 8M pri -1", "'pri' after zram 8M"),
        ("zram 8M fast", "'fast' after zram 8M"),
        ("zram 8M rotational", "never rotational"),
    ],
)
def test_refused_swap_devices(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_swap(text)


def test_sizes_in_bytes() -> None:
    assert [size_in_bytes(text) for text in ("4096", "8K", "3M", "2G")] == [4096, 8192, 3 << 20, 2 << 30]


def test_mthp() -> None:
    assert parse_mthp("64m 16") == "16 64m"
    assert parse_mthp("2048 64") == "64 2048"
    assert parse_mthp("-") == parse_mthp("") == ""
    for text in ("8", "48", "64 64m", "64k", "always"):
        with pytest.raises(ValueError, match="not a set of mTHP sizes"):
            parse_mthp(text)


def test_header_leaves_out_defaults() -> None:
    assert Machine("64").header("7.3.4", "one") == {
        "kernel": "7.3.4",
        "workload": "one",
        "mthp": "64",
        "swap": "zram 128M",
        "cpus": "1  memory 1024M",
    }


def test_header_says_what_is_not_default() -> None:
    header = Machine(limit="32M", lru="classic", zswap=True, page_cluster=5).header("7.3.4", "one")
    assert header["mthp"] == "-" and header["memory.max"] == "32M" and header["lru"] == "classic"
    assert header["zswap"] == "on" and header["page-cluster"] == "5"
    header = Machine(high="16M", swap_max="8M", swappiness=10, defrag="never").header("7.3.4", "one")
    assert header["memory.high"] == "16M" and header["memory.swap.max"] == "8M"
    assert header["swappiness"] == "10" and header["defrag"] == "never" and header["lru"] == "mglru"
    assert "memory.max" not in header and "fragment" not in header
    assert Machine(fragment="0").header("7.3.4", "one")["fragment"] == "0"


def test_guest_of_two_devices() -> None:
    script = guest_script(Machine("64", parse_swap("zram 8M pri 5, zram 12M")), ["lz4.ko", "zram.ko"])
    lines = script.splitlines()
    assert lines.index("insmod /lib/lz4.ko") < lines.index("insmod /lib/zram.ko num_devices=2")
    assert "echo 8388608 > /sys/block/zram0/disksize" in lines
    assert "mkswap /dev/zram0 > /dev/null; /swapon /dev/zram0 5 0" in lines
    assert "mkswap /dev/zram1 > /dev/null; /swapon /dev/zram1 -1 0" in lines
    assert "/interpreter -m '64' /workload" in lines
    assert not any("cgroup" in line for line in lines)


def test_guest_with_a_limit_and_a_disk() -> None:
    machine = Machine("", parse_swap("virtio 8M rotational"), limit="32M", lru="classic", zswap=True)
    lines = guest_script(machine, ["virtio_blk.ko"]).splitlines()
    assert "echo 1 > /sys/block/vda/queue/rotational" in lines
    assert "echo Y > /sys/module/zswap/parameters/enabled" in lines
    assert "echo 0 > /sys/kernel/mm/lru_gen/enabled" in lines
    assert "/interpreter -m '' -w -g /sys/fs/cgroup/limited /workload" in lines


def test_guest_with_memory_in_pieces() -> None:
    """The program that breaks it up has run before the recording starts."""
    lines = guest_script(Machine("64", fragment="8M"), []).splitlines()
    assert lines.index("/fragment 8388608") < lines.index("echo 'RECORDING STARTS'")
    assert "/interpreter -m '64' -b /workload" in lines
    assert "/fragment 0" in guest_script(Machine(fragment="0"), []).splitlines()
    assert not any("fragment" in line for line in guest_script(Machine(), []).splitlines())


@pytest.mark.parametrize(
    ("machine", "written"),
    [
        (Machine(limit="32M"), {"memory.max": 32 << 20}),
        (Machine(high="16M"), {"memory.high": 16 << 20}),
        (Machine(limit="32M", swap_max="8M"), {"memory.max": 32 << 20, "memory.swap.max": 8 << 20}),
    ],
)
def test_guest_with_limits(machine: Machine, written: dict[str, int]) -> None:
    """A cgroup of its own, with the limits that are given; the others stay at max."""
    lines = guest_script(replace(machine, swappiness=0, defrag="defer+madvise"), []).splitlines()
    assert "echo 0 > /proc/sys/vm/swappiness" in lines
    assert "echo defer+madvise > /sys/kernel/mm/transparent_hugepage/defrag" in lines
    folder = "/sys/fs/cgroup/limited"
    echoed = {line.partition(f" > {folder}/")[::2] for line in lines if f" > {folder}/memory" in line}
    assert echoed == {(f"echo {size}", file) for file, size in written.items()}


def test_guest_with_named_cgroups() -> None:
    """A cgroup for each name of the workload, with the limits that it is given."""
    workload = b"REGION 64 plain\nFORK 1\n  CGROUP a\n@0 p1 CGROUP b\np1 CGROUP a\n# CGROUP c\n"
    names = named_cgroups(workload)
    assert names == ["a", "b"]
    machine = Machine(limit="a=4M, b=3M", swap_max="b=1M", lru="classic")
    lines = guest_script(machine, [], names).splitlines()
    assert "mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b" in "; ".join(lines)
    assert "echo 4194304 > /sys/fs/cgroup/a/memory.max" in lines
    assert "echo 1048576 > /sys/fs/cgroup/b/memory.swap.max" in lines
    assert "/interpreter -m '' -c 'a b' /workload" in lines and not machine.limited
    header = machine.header("7.3.4", "one")
    assert (header["memory.max"], header["memory.swap.max"], header["lru"]) == (
        "a=4M, b=3M",
        "b=1M",
        "classic",
    )
    with pytest.raises(
        RecordingError, match="a limit of cgroup b, which the workload does not name; it names a"
    ):
        guest_script(machine, [], ["a"])
