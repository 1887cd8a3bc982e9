"""Generated accesses: splitmix64 against known values, each operation against its definition."""

import itertools

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.workload import Kind, parse_workload
from jaxswap.workload.generate import expand, splitmix64, zipf_sums

MASK = 2**64 - 1


def draws(seed: int):
    """splitmix64, one draw at a time."""
    while True:
        seed = seed + 0x9E3779B97F4A7C15 & MASK
        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        yield z ^ z >> 31


def test_splitmix64_known_values() -> None:
    # The first outputs of the reference generator from states 0 and 1234567.
    assert splitmix64(0, 0, 3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(1234567, 0, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(2**64 - 1, 3, 4).tolist() == list(itertools.islice(draws(2**64 - 1), 3, 7))


def by_definition(operation: str, a: dict[str, int], npages: int) -> list[tuple[int, bool]]:
    if operation == "INIT":
        return [(v, True) for v in range(npages)]
    stream, out = draws(a["seed"]), []
    for k in range(a["passes"] * a["n"] if operation == "SEQ" else a["count"]):
        r = next(stream)
        x = r >> 10
        if operation == "SEQ":
            page = a["from"] + k % a["n"]
        elif operation == "UNI":
            page = a["from"] + x % a["n"]
        elif operation == "HOT":
            page = a["from"] + (x >> 10) % a["n"] if x & 1023 < a["H"] else (x >> 10) % npages
        elif operation == "STRIDE":
            page = k * a["step"] % npages
        else:
            weights = [int(2**40 * (i + 1) ** -0.99) for i in range(npages)]
            y, rank = x % sum(weights), 0
            while y >= weights[rank]:
                y -= weights[rank]
                rank += 1
            page = rank if a["L"] else rank * 0x9E3779B1 % npages
        out.append((page, r & 1023 < a["W"]))
    return out


@pytest.mark.parametrize(
    ("line", "npages"),
    [
        ("INIT", 37),
        ("SEQ 3 20 4 307 101", 37),
        ("UNI 5 30 500 307 18446744073709551615", 37),
        ("ZIPF 400 512 7 0", 64),
        ("ZIPF 400 0 8 1", 37),
        ("HOT 16 9 922 500 307 401", 37),
        ("STRIDE 7 300 1024 9", 37),
        ("SEQ 0 4 0 307 1", 37),
    ],
)
def test_expansion(line: str, npages: int) -> None:
    operation, *numbers = line.split()
    names = {
        "SEQ": "from n passes W seed",
        "UNI": "from n count W seed",
        "ZIPF": "count W seed L",
        "HOT": "from n H count W seed",
        "STRIDE": "step count W seed",
    }.get(operation, "")
    a = dict(zip(names.split(), map(int, numbers), strict=True))
    want = by_definition(operation, a, npages)
    page, write = expand(operation, a, npages)
    assert list(zip(page.tolist(), write.tolist(), strict=True)) == want
    # parsed: the same accesses in the same order, in maximal runs, all from the one line
    workload = parse_workload(f"REGION {npages} plain\n# a remark\n{line}\nDUMP end\n")
    runs = list(zip(workload.kind[:-1].tolist(), workload.v.tolist(), workload.n.tolist(), strict=False))
    got = [(v + i, kind == Kind.TOUCH) for kind, v, n in runs for i in range(n)]
    assert got == want
    assert workload.accesses == len(want)
    assert all((a[0], a[1] + a[2]) != b[:2] for a, b in itertools.pairwise(runs))
    assert set(workload.line[:-1].tolist()) <= {3} and workload.line[-1] == 4
    assert workload.text == {len(workload) - 1: "end"}


def test_write_counts_of_recorded_kernels() -> None:
    # What the recorded process counted after its first and second UNI of the pressure workload "uni".
    workload = parse_workload("REGION 12288 huge\nUNI 0 12288 40000 307 201\nUNI 0 12288 40000 307 202\n")
    written = [
        int(workload.n[(workload.kind == Kind.TOUCH) & (workload.line == line)].sum()) for line in (2, 3)
    ]
    assert written == [12124, 24119 - 12124]


def test_zipf_table() -> None:
    sums = zipf_sums()
    assert len(sums) == 16384 and sums[0] == 2**40 and sums.dtype == np.uint64
    assert (np.diff(sums.astype(np.int64)) > 0).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("UNI 0 65 10 0 1", "pages 0..64 reach past REGION's 64 pages"),
        ("UNI 0 0 10 0 1", "n must be at least 1"),
        ("UNI 0 64 10 1025 1", "W is 1025; it must be 0..1024"),
        ("UNI 0 64 10 0", "UNI takes 5 numbers, got 4: UNI from n count W seed"),
        ("UNI 0 64 10 0 -1", "seed is not a non-negative whole number: -1"),
        ("UNI 0 64 10 0 18446744073709551616", "seed is 18446744073709551616"),
        ("UNI 0 64 999999999 0 1", "split it"),
        ("SEQ 0 64 999999999 0 1", "split it"),
        ("HOT 0 64 2000 10 0 1", "H is 2000"),
        ("ZIPF 10 0 1 2", "L is 2"),
        ("INIT 3", "INIT takes 0 numbers, got 1"),
        ("STRIDE 1 2 3", "STRIDE takes 4 numbers"),
    ],
)
def test_bad_numbers(line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_workload(f"REGION 64 plain\n{line}\n", name="w.t")
    assert str(caught.value).startswith("w.t:2: ") and message in str(caught.value)


def test_zipf_needs_its_region() -> None:
    with pytest.raises(InputError, match="power of two"):
        parse_workload("REGION 65 plain\nZIPF 10 0 1 0\n")
    with pytest.raises(InputError, match="at most 16384"):
        parse_workload("REGION 32768 plain\nZIPF 10 0 1 0\n")
