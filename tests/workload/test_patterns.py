"""Synthetic workloads: what each promises, the allocator test beside a C program of its walk, errors."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jaxswap.cli import main
from jaxswap.errors import InputError
from jaxswap.report.workload import patterns_text
from jaxswap.workload import Kind, Workload, parse_workload, read_workload
from jaxswap.workload.patterns import PATTERNS, parse_pattern, pattern_text
from tests.workload.test_importing import steps

SMALL = {"pages": 256, "target": 160, "pressure": 64, "count": 500, "iterations": 2, "large": 1}


def made(text: str) -> Workload:
    return parse_workload(pattern_text(text))


def small(name: str, **values: int) -> Workload:
    numbers = {number.name for number in PATTERNS[name].numbers}
    given = {key: value for key, value in SMALL.items() if key in numbers} | values
    return made(f"{name}:" + ",".join(f"{key}={value}" for key, value in given.items()))


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_can_be_replayed_and_says_what_it_is(name: str) -> None:
    workload = small(name)
    assert workload.accesses > 0 and workload.meta["program"] == name
    pattern, values = parse_pattern(workload.meta["pattern"])
    assert pattern.name == name and pattern_text(workload.meta["pattern"]).count("\n") > 3
    assert all(values[key] == SMALL[key] for key in values if key in SMALL)
    assert name in patterns_text()


def pages_after(workload: Workload, first: int) -> list[int]:
    """Pages accessed after the first ones."""
    return [page for _, page, _ in steps(workload)][first:]


def test_simple_patterns() -> None:
    assert pages_after(small("sequential", passes=2), 256) == [*range(256)] * 2
    assert pages_after(small("strided", step=17), 256) == [k * 17 % 256 for k in range(500)]
    counts = np.bincount(pages_after(small("uniform", count=20_000), 256), minlength=256)
    assert counts.min() > 40 and counts.max() < 130
    hot = np.array(pages_after(small("hotcold", hot=128, share=512, count=20_000), 256)) < 32
    assert 0.54 < hot.mean() < 0.59  # a half of them, and an eighth of the other half
    zipf = np.bincount(pages_after(small("zipf", together=1, count=20_000), 256), minlength=256)
    assert zipf[0] > 4 * zipf[10] > 0 and zipf[:26].sum() > 10_000
    scattered = np.bincount(pages_after(small("zipf", count=20_000), 256), minlength=256)
    assert sorted(scattered) == sorted(zipf) and scattered.tolist() != zipf.tolist()
    parts = np.array(pages_after(small("phases", parts=4, phases=4, count=512), 256)).reshape(4, 512)
    assert [sorted({*(part // 64).tolist()}) for part in parts] == [[0], [1], [2], [3]]
    assert parts[1].tolist() == [*range(64, 128)] * 8
    assert (np.diff(parts[0]) == 1).mean() < 0.1


def test_a_quarter_writes() -> None:
    writes = [write for _, _, write in steps(small("uniform", count=20_000))][256:]
    assert 0.23 < np.mean(writes) < 0.27


def test_the_six_of_the_posting() -> None:
    one = made("usama_1g")
    assert [Kind(k).name for k in one.kind] == ["TOUCH", "PAGEOUT", "READ"] and one.npages == 1 << 18
    for name, back in {
        "nohint_seq64": [*range(160)],
        "seqhint_seq64": [*range(160)],
        "stride64_sparse": [*range(0, 160, 16)],
    }.items():
        assert pages_after(small(name), 224) == back, name
        assert pages_after(small(name), 0)[:224] == [*range(224)]
        assert not any(write for _, _, write in steps(small(name))[224:])
    sparse, full = pages_after(small("random64_sparse"), 224), pages_after(small("random64_full"), 224)
    assert sorted(sparse) == [*range(0, 160, 16)] != sparse
    assert full == [page + i for page in sparse for i in range(16)]
    assert pages_after(small("random64_sparse", seed=2), 224) != sparse
    assert made("nohint_seq64").npages * 4096 == (512 + 768) << 20


WALK = r"""
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
	int large = atoi(argv[1]) * 256, small = atoi(argv[2]) * 256, aligned = atoi(argv[3]);
	printf("fill 0 %d\nout 0 %d\n", large, large);
	if (small) printf("fill %d %d\nout %d %d\n", large, small, large, small);
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < (aligned ? 256 : 4096); k++) {
			int page = rand() % (large / (aligned ? 16 : 1)) * (aligned ? 16 : 1);
			printf("fill %d %d\n", page, aligned ? 16 : 1);
		}
		for (int k = 0; k < 256; k++) {
			int page = rand() % (large / 16) * 16;
			printf("drop %d 16\nfill %d 16\n", page, page);
		}
		for (int k = 0; small && k < 256; k++)
			printf("fill %d 1\n", large + rand() % small);
		printf("out 0 %d\n", large);
		if (small) printf("out %d %d\n", large, small);
	}
}
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")
@pytest.mark.parametrize(("small", "aligned"), [(0, 0), (4, 0), (0, 1), (4, 1)])
def test_the_allocator_test_walks_as_a_program_with_libc_rand(
    tmp_path: Path, small: int, aligned: int
) -> None:
    (tmp_path / "walk.c").write_text(WALK)
    subprocess.run(["gcc", "-o", tmp_path / "walk", tmp_path / "walk.c"], check=True)
    walk = subprocess.run(
        [tmp_path / "walk", "60", str(small), str(aligned)], capture_output=True, text=True, check=True
    )
    names = {Kind.TOUCH: "fill", Kind.PAGEOUT: "out", Kind.DONTNEED: "drop"}
    workload = made(f"thp_swap_allocator_test:iterations=3,small={small},aligned={aligned}")
    rows = zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)
    assert [f"{names[kind]} {v} {n}" for kind, v, n in rows if kind in names] == walk.stdout.split("\n")[:-1]
    advices = [text for i, text in workload.text.items() if workload.kind[i] == Kind.MAP]
    assert advices == ["huge", "nohuge"][: 2 if small else 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spiral", "no pattern 'spiral'; there are: sequential"),
        ("uniform:colour=1", "uniform has no parameter 'colour=1'; write uniform:pages=4096,count=100000"),
        ("uniform:pages", "uniform has no parameter 'pages'"),
        ("uniform:pages=0", "uniform:pages=0: pages is 0; it must be 1 to 16777216"),
        ("uniform:pages=1e3", "pages is 1e3; it must be"),
        ("zipf:pages=1000", "zipf: pages is 1000; with together=0 it must be a power of 2"),
        ("phases:pages=3,parts=4,phases=4", "phases: parts is 4, more than the 3 pages"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        pattern_text(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("suffix", [".t", ".t.gz", ".parquet"])
def test_the_command_writes_any_form(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"z{suffix}"
    assert main(["generate", "zipf:pages=512,count=3000", "--out", str(path)]) == 0
    assert steps(read_workload(path)) == steps(made("zipf:pages=512,count=3000"))
    if suffix == ".t":
        assert path.read_text().splitlines()[-1] == "ZIPF 3000 256 1 0"
