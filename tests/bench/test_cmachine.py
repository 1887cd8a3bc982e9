"""The plain C machine equals the reference machine: page maps, folios, counters, and the same end."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from jaxswap.bench.cmachine import CLane, CMachine, available
from jaxswap.workload import Kind, Workload, parse_workload
from tests.machine.workloads import TORN_PAGES, torn_text
from tests.reference.machine import Machine
from tests.reference.run import Runner, dump, folios

if not available():
    pytest.skip("no C compiler here: install gcc or clang, or set CC", allow_module_level=True)

ALL = 0b1_1111_1100
MASKS = [
    (1 << 4, 0),
    (0, 1 << 4),
    (ALL, 0),
    (1 << 2 | 1 << 4, 1 << 6),
    (1 << 9 | 1 << 3, ALL),
    (0, 0),
    (1 << 2, 1 << 8),
]
ACCESSES = {"TOUCH": 10, "READ": 20, "FILL": 12, "READN": 12, "ZERO": 6}
ADVICE = {"DONTNEED": 14, "PAGEOUT": 18, "WILLNEED": 8, "COLD": 3, "MADVHUGE": 1, "MADVNOHUGE": 1}


@pytest.fixture(scope="module")
def machine() -> CMachine:
    return CMachine()


class Space:
    """The mapped ranges of a workload under construction."""

    def __init__(self, rng: random.Random, npages: int) -> None:
        self.rng, self.npages = rng, npages
        self.mapped = bytearray(npages)

    def change(self) -> str:
        """Map or unmap a random range."""
        rng = self.rng
        v = rng.randrange(self.npages)
        v = v // 16 * 16 if rng.random() < 0.5 else v
        n = min(rng.choice([5, 64, 200, 700]), self.npages - v)
        if rng.random() < 0.6 or not any(self.mapped):
            self.mapped[v : v + n] = b"\1" * n
            return f"MAP {v} {n} {rng.choice(['huge', 'plain', 'plain', 'nohuge'])}"
        self.mapped[v : v + n] = b"\0" * n
        return f"UNMAP {v} {n}"

    def mapped_range(self, v: int, n: int) -> tuple[int, int] | None:
        """The longest mapped start of [v, v+n)."""
        end = self.mapped.find(0, v, v + n)
        n = (v + n if end < 0 else end) - v
        return (v, n) if n else None


def random_workload(seed: int, advice: str, npages: int, operations: int, with_maps: bool) -> Workload:
    """Accesses and advice on aligned blocks and on odd ranges; with_maps: MAP and UNMAP too."""
    rng = random.Random(seed)
    space = Space(rng, npages)
    lines = [f"REGION {npages} {advice}"]
    if with_maps:
        lines += [space.change() for _ in range(4)]
    else:
        space.mapped[:] = b"\1" * npages
        if rng.random() < 0.5:
            lines.append(f"MADVNOHUGE {npages // 2} {npages // 4}")
        if rng.random() < 0.5:
            lines += [f"FILL 0 {npages}", f"PAGEOUT 0 {npages}", "DUMP start", "STATS start"]
    words = list((ACCESSES | ADVICE).items())
    for i in range(operations):
        if with_maps and rng.random() < 0.06:
            lines.append(space.change())
            continue
        if rng.random() < 0.5:
            v, n = rng.randrange((npages + 15) // 16) * 16, 16 * rng.choice([1, 1, 1, 2, 4])
        else:
            v, n = rng.randrange(npages), rng.choice([1, 1, 2, 3, 5, 8, 13])
        op = rng.choices([word for word, _ in words], [weight for _, weight in words])[0]
        if op in ("PAGEOUT", "DONTNEED", "FILL") and rng.random() < 0.2:
            v, n = max(0, v - 64), rng.choice([64, 128, 256, 600])
        if op in ("TOUCH", "READ"):
            n = 1
        elif op in ("ZERO", "WILLNEED"):
            n = min(n, rng.choice([1, 1, 2, 4, 16]))
        if inside := space.mapped_range(v, min(n, npages - v)):
            lines.append(f"{op} {inside[0]}" + ("" if op in ("TOUCH", "READ") else f" {inside[1]}"))
        if i % 60 == 59:
            lines += [f"DUMP d{i}", f"FOLIOS f{i}", f"STATS s{i}"]
    lines += ["DUMP end", "STATS end", "FOLIOS end"]
    return parse_workload("\n".join(lines) + "\n", name=f"random-{seed}")


def blocks(workload: Workload, machine: Machine) -> Iterator[tuple[str, str, object]]:
    """What the C machine prints: page maps and folios as a recording has them, all counters."""
    runner = Runner(workload, machine)
    for i in range(len(workload)):
        runner.step(i)
        kind, text = Kind(workload.kind[i]), workload.text.get(i, "")
        if kind in (Kind.DUMP, Kind.FOLIOS):
            show = dump if kind is Kind.DUMP else folios
            yield kind.name, text, show(machine.processes[0])
        elif kind is Kind.STATS:
            yield "STATS", text, machine.n.copy()


def compare(machine: CMachine, workload: Workload, lane: CLane) -> Counter[str]:
    """Replay on both; fails at the first block or counter that differs. Returns the run's counters."""
    reference = Machine(
        workload.npages,
        always=lane.always & ALL,
        madvise=lane.madvise,
        limit=lane.limit_pages,
        swap_slots=lane.swap_slots,
    )
    expected = list(blocks(workload, reference))
    got = machine.run(workload, *lane)
    assert [block[:2] for block in got.blocks] == [block[:2] for block in expected]
    for (kind, label, mine), (_, _, theirs) in zip(got.blocks, expected, strict=True):
        if isinstance(theirs, Counter):
            theirs = dict(+theirs)
        assert mine == theirs, f"{workload.name}: {kind} {label} on {lane}"
    final = +reference.final_counters()
    assert got.counters == dict(final), f"{workload.name} on {lane}"
    assert got.oom == reference.oom
    return final


def random_lane(seed: int, limited: bool) -> CLane:
    rng = random.Random(seed)
    always, madvise = MASKS[seed % len(MASKS)]
    limit = rng.choice([70, 130, 200, 300, 500]) if limited else None
    return CLane(always, madvise, limit, rng.choice([600, 1024, 1500, 2048, 4096, 16384]))


@pytest.mark.parametrize("limited", [False, True], ids=["no-limit", "limit"])
@pytest.mark.parametrize("seed", range(30))
def test_random_workloads(machine: CMachine, seed: int, limited: bool) -> None:
    rng = random.Random(1000 + seed)
    advice, npages = rng.choice(["huge", "plain", "plain"]), rng.choice([300, 777, 1500])
    workload = random_workload(seed, advice, npages, 240, with_maps=seed % 3 == 0)
    compare(machine, workload, random_lane(seed + 500 * limited, limited))


@pytest.mark.parametrize("seed", range(20))
def test_the_deferred_split_list_is_scanned_when_little_can_be_reclaimed(
    machine: CMachine, seed: int
) -> None:
    rng = random.Random(seed)
    lane = CLane(
        rng.choice([1 << 2, 1 << 3]), 0, TORN_PAGES + rng.randint(10, 200), rng.choice([512, 1024, 8192])
    )
    counters = compare(machine, parse_workload(torn_text(seed) + "DUMP end\nSTATS end\n"), lane)
    assert seed or counters["16kB/split"] + counters["32kB/split"]


def test_page_tables_given_back_go_to_the_stock(machine: CMachine) -> None:
    """A charge of a large folio then finds it there, or the limit reached."""
    rounds = [
        f"DONTNEED {block * 512} 512\nFILL {block * 512} {n}" for n in (40, 17, 300) for block in range(4)
    ]
    workload = parse_workload("REGION 2048 plain\nFILL 0 2048\n" + "\n".join(rounds) + "\n")
    for limit in range(200, 232):
        compare(machine, workload, CLane(1 << 4, 0, limit, 8192))


@pytest.mark.parametrize("limit", [None, 300], ids=["no-limit", "limit"])
@pytest.mark.parametrize("seed", range(6))
def test_conflicts_in_the_swap_cache(machine: CMachine, seed: int, limit: int | None) -> None:
    """Small pages in slots that suit large folios, some of them zero or in the swap cache."""
    rng = random.Random(seed)
    lines = ["REGION 512 nohuge", "FILL 1 511", "ZERO 64 32"]
    lines += [f"ZERO {rng.randrange(1, 500)} {rng.choice([1, 2, 4])}" for _ in range(40)]
    lines += ["PAGEOUT 1 511", "MADVHUGE 0 512"]
    for _ in range(60):
        lines.append(f"WILLNEED {rng.randrange(1, 512)} 1")
        lines += [f"READ {rng.randrange(1, 512)}" for _ in range(3)]
    lines += [
        "DUMP end",
        "FOLIOS end",
        "STATS end",
        "DONTNEED 0 256",
        "PAGEOUT 0 512",
        "DUMP out",
        "STATS out",
    ]
    workload = parse_workload("\n".join(lines) + "\n", name=f"conflicts-{seed}")
    counters = compare(machine, workload, CLane(ALL, 0, limit, 2048))
    assert limit or all(counters[f"refused/swapin/{why}/16kB"] for why in ("zero_flag", "cached"))


GENERATED = {
    "seq": "INIT\nSTATS a\nSEQ 0 900 3 307 11",
    "uni": "INIT\nSTATS a\nUNI 0 1024 2500 307 12",
    "hot": "INIT\nSTATS a\nHOT 0 256 922 2000 307 13\nSTATS b\nHOT 512 256 922 2000 307 14",
    "stride": "INIT\nSTATS a\nSTRIDE 17 5000 512 15",
}


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("advice", ["huge", "plain"])
@pytest.mark.parametrize("mask", [0, 1 << 4, ALL])
def test_reclaim_under_a_limit(machine: CMachine, name: str, advice: str, mask: int) -> None:
    text = f"REGION 1024 {advice}\n{GENERATED[name]}\nDUMP end\nFOLIOS end\nSTATS end\n"
    counters = compare(machine, parse_workload(text, name=name), CLane(mask, 0, 512, 4096))
    assert counters["pgsteal"] > 0 and counters["pgmajfault"] > 0


def test_full_device_splits_and_ends(machine: CMachine) -> None:
    """Large folios without slots are split; a limit with a full device ends in the OOM killer."""
    text = "REGION 2000 huge\nFILL 0 2000\nPAGEOUT 0 2000\nDUMP end\nSTATS end\n"
    workload = parse_workload(text)
    assert compare(machine, workload, CLane(ALL, 0, None, 1300))["256kB/swpout_fallback"] > 0
    compare(machine, workload, CLane(ALL, 0, 400, 1300))
    assert machine.run(workload, ALL, 0, 400, 1300).oom


def test_counters_are_those_of_the_last_block(machine: CMachine) -> None:
    workload = parse_workload("REGION 64 plain\nFILL 0 64\nPAGEOUT 0 32\nREAD 3\nSTATS end\n")
    arguments = (workload, 1 << 4, 0, None, 1024)
    ((kind, label, stats),) = machine.blocks(*arguments)
    assert (kind, label, stats["64kB/swpin"], stats["pswpout"]) == ("STATS", "end", 1, 32)
    assert machine.counters(*arguments)["useless_swapin"] == 15


def test_timing(machine: CMachine) -> None:
    workload = random_workload(1, "plain", 1500, 300, with_maps=False)
    lanes = [CLane(1 << 4, 0, None, 4096), (0, 0, 300, 4096)]
    timing = machine.measure(workload, lanes, 3)
    assert len(timing.ns) == 3 and min(timing.ns) > 0
    assert timing.lanes == 2 and timing.accesses == workload.accesses
    assert 0 < timing.per_access < timing.per_operation
    assert len(machine.time(workload, lanes, 2)) == 2


def test_operations_are_cut_at_blocks_and_borders(machine: CMachine) -> None:
    workload = parse_workload("REGION 1500 plain\nFILL 0 1500\nMADVHUGE 600 100\nREADN 500 300\nTOUCH 9\n")
    assert machine.measure(workload, [CLane(0, 0, None, 1024)], 1).operations == 3 + 4 + 1


def test_bad_lanes_are_refused(machine: CMachine) -> None:
    workload = parse_workload("REGION 16 plain\nTOUCH 1\n")
    with pytest.raises(ValueError, match="swap_slots is 0"):
        machine.run(workload, 0, 0, None, 0)
    with pytest.raises(ValueError, match="limit_pages is 0"):
        machine.run(workload, 0, 0, 0, 1024)
    with pytest.raises(ValueError, match="at least one lane"):
        machine.measure(workload, [], 1)
