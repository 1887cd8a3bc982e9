"""The lackey importer: equal to its line-at-a-time twin on random logs and a real run; bad logs."""

import gzip
import io
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.workload import Kind, Workload, format_workload, parse_workload
from jaxswap.workload.files import open_checked, stem
from jaxswap.workload.lackey import read_lackey
from tests.workload.lackey_twin import Twin


def import_lackey(path: Path, *entries: Any, **options: Any) -> Workload:
    """The workload of a log's file."""
    with open_checked(path, "lackey log") as file:
        return read_lackey(file, str(path), *entries, name=stem(path), **options)


HEAD = """\
==7== Lackey, an example Valgrind tool
==7== Using Valgrind-3.19.0 and LibVEX
==7== Command: ./prog a
"""
STACK = 0x1FFF000000
# three neighbourhoods: low mappings across a 2 MiB border, far mappings, the brk heap
BASES = (0x4A00000 - 0x6000, 0x7F0000200000, 0x4035000)

pages = st.tuples(st.sampled_from(BASES), st.integers(0, 11)).map(lambda t: t[0] + t[1] * 4096)
sizes = st.sampled_from([1, 8, 32, 512])
offsets = st.sampled_from([0, 8, 4092, 4095])
kinds = st.sampled_from("LSM")


def call(name: str, arguments: str, result: int, split: bool = False, process: int = 7) -> str:
    head = f"SYSCALL[{process},1]( 9) "
    end = f"--> [async] ... \n{head}... [async] --> " if split else "[sync] --> "
    return f"{head}sys_{name} ( {arguments} ) {end}Success({result:#x}) \n"


def hexadecimal(*numbers: int) -> str:
    return ", ".join(hex(n) if i == 0 else str(n) for i, n in enumerate(numbers))


lengths = st.integers(1, 12).map(lambda n: n * 4096 - 5)
protections = st.sampled_from([0, 1, 3])
accesses = st.builds(lambda k, p, o, s: f" {k} {p + o:08x},{s}\n", kinds, pages, offsets, sizes)
stack_accesses = st.builds(
    lambda k, p, s: f" {k} {STACK - p * 4096:08x},{s}\n", kinds, st.integers(0, 60), sizes
)
loops = st.builds(
    lambda body, n: "".join(body) * n, st.lists(accesses, min_size=1, max_size=5), st.integers(2, 9)
)
fetches = st.just("I  04001234,3\n") | st.just("I  0400aaaa,12\n")
maps = st.builds(
    lambda p, n, prot, flags: call("mmap", hexadecimal(0, n, prot, flags, 4294967295, 0), p),
    pages,
    lengths,
    protections,
    st.sampled_from([0x22, 0x22, 0x32, 0x4022, 0x2, 0x21, 0x40022]),
)
edits = st.builds(
    lambda name, p, n, number, split: call(name, hexadecimal(p, n, *number), 0, split),
    st.just("munmap"),
    pages,
    lengths,
    st.just(()),
    st.booleans(),
) | st.builds(
    lambda name, p, n, number, split: call(name, hexadecimal(p, n, number), 0, split),
    st.just("mprotect"),
    pages,
    lengths,
    protections,
    st.booleans(),
)
advices = st.builds(
    lambda p, n, number: call("madvise", hexadecimal(p, n, number), 0, True),
    pages,
    lengths,
    st.sampled_from([3, 4, 8, 14, 15, 16, 20, 21, 24]),
)
moves = st.builds(
    lambda p, n, m, q: call("mremap", f"{p:#x}, {n}, {m}, 0x1", q if q else p),
    pages,
    lengths,
    lengths,
    st.none() | pages,
)
breaks = st.integers(0, 11).map(lambda n: call("brk", hex(0), BASES[2] + n * 4096))
buffers = st.builds(
    lambda name, p, n: call(name, f"4, {p:#x}, 65536", n, True),
    st.sampled_from(["read", "write", "pread64", "sendto"]),
    pages,
    st.integers(0, 9000),
)
noise = st.sampled_from(
    [
        "==7== some remark\n",
        "SYSCALL[7,1](257) sys_openat ( 4294967196, 0x4034bb0(/etc/passwd), 0 ) --> [async] ... \n"
        "SYSCALL[7,1](257) ... [async] --> Failure(0x2) \n",
        "SYSCALL[7,1](334) unimplemented (by the kernel) syscall: 334! (ni_syscall)\n"
        " --> [pre-fail] Failure(0x26) \n",
        call("munmap", f"{BASES[0]:#x}, 999999", 0, process=8),
        "SYSCALL[7,1](11) sys_munmap ( 0x49fa100, 4096 )[sync] --> Failure(0x16) \n",
    ]
)
events = maps | edits | advices | moves | breaks | buffers | noise
many = st.lists(accesses | loops | stack_accesses | fetches, min_size=1, max_size=15).map("".join)
START = "".join(
    (
        HEAD,
        f" S {STACK:08x},8\n",
        call("brk", "0x0", BASES[2]),
        call("brk", "0x0", BASES[2] + 7 * 4096),
        *(call("mmap", "0x0, 40960, 3, 34, 4294967295, 0", base) for base in BASES[:2]),
    )
)
logs = st.lists(many | many | events, min_size=5, max_size=30).map(lambda lines: START + "".join(lines))


def long_log(seed: int) -> str:
    """Some 3,000 accesses in bursts over up to a dozen pages, with seventy system calls in between."""
    random = Random(seed)
    lines = [START]
    for _ in range(120):
        base, width = random.choice(BASES), random.choice([2, 6, 12])
        kinds, order = random.choice(["L", "S", "LLLS", "LSM"]), random.choice(["up", "any", "period"])
        burst = [base + random.randrange(width) * 4096 for _ in range(random.randrange(1, 40))]
        if order == "period":
            burst = burst[: random.randrange(1, 6)] * random.randrange(2, 12)
        elif order == "up":
            burst.sort()
        for address in burst:
            if random.random() < 0.1:
                address = STACK - random.randrange(60) * 4096
            offset = random.choice([0, 0, 0, 4092])
            lines.append(f" {random.choice(kinds)} {address + offset:08x},8\n")
        page, pages = random.choice(BASES) + random.randrange(12) * 4096, random.randrange(1, 8) * 4096
        number = random.choice([3, 4, 14, 15, 20, 21])
        protection, new_pages = random.choice([0, 1, 3, 3, 3]), random.randrange(1, 9) * 4096
        lines += random.choices(
            [
                "I  04001234,3\n",
                call("mmap", f"0x0, {pages}, {protection}, 34, 4294967295, 0", page),
                call("munmap", f"{page:#x}, {pages}", 0),
                call("mprotect", f"{page:#x}, {pages}, {protection}", 0),
                call("madvise", f"{page:#x}, {pages}, {number}", 0, True),
                call("mremap", f"{page:#x}, {pages}, {new_pages}, 0x1", random.choice(BASES)),
                call("brk", "0x0", BASES[2] + random.randrange(4, 12) * 4096),
                call("read", f"3, {page + 100:#x}, 9000", random.randrange(9000), True),
            ],
            [8, 4, 1, 1, 1, 0.3, 1, 1],
        )
    return "".join(lines)


@pytest.mark.parametrize("seed", range(24))
def test_long_logs_equal_twin(seed: int) -> None:
    compare(long_log(seed), (8, 12, 20)[seed % 3], (300, 5000, 1 << 20)[seed // 3 % 3])


@settings(max_examples=200)
@given(logs, st.sampled_from([8, 9, 16]), st.sampled_from([200, 1 << 10, 1 << 20]))
def test_equals_twin(log: str, entries: int, piece_bytes: int) -> None:
    compare(log, entries, piece_bytes)


def compare(log: str, entries: int, piece_bytes: int) -> None:
    workload = read_lackey(io.BytesIO(log.encode()), "log", entries, piece_bytes=piece_bytes)
    twin = Twin(log, entries)
    got = [
        (kind, v, n, workload.text.get(i, ""))
        for i, (kind, v, n) in enumerate(
            zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)
        )
    ]
    assert got == twin.operations
    assert workload.npages == twin.npages
    assert workload.meta["accesses"] == f"raw {twin.raw}, of these to anonymous memory {twin.anonymous}"
    assert workload.meta["filter"] == f"{entries} entries, passed {twin.passed}"
    # every access lies in a mapping: the text form is accepted
    again = parse_workload(format_workload(workload))
    assert np.array_equal(again.kind, workload.kind) and np.array_equal(again.v, workload.v)


def small_log(body: str) -> str:
    mapped = call("mmap", "0x0, 8192, 3, 34, 4294967295, 0", 0x4A2A000)
    return HEAD + " S 1fff000688,8\n" + mapped + body + "==7== Exit code:       0\n"


def imported(tmp_path: Path, log: str | bytes, file: str = "prog.log", **options) -> str:
    path = tmp_path / file
    path.write_bytes(log.encode() if isinstance(log, str) else log)
    return format_workload(import_lackey(path, **options))


def test_small_log_by_hand(tmp_path: Path) -> None:
    body = " L 04a2a000,8\n L 04a2affc,8\n S 04a2a010,4\n M 04a2b000,4\nI  04a2b000,3\n L 04000000,8\n"
    text = imported(tmp_path, small_log(body))
    # The stack ends at 0x1fff001000, its mapping starts 33 pages below; 0x4a2a is page 42 of its block; one
    # empty block stands for the space between.
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "REGION 2048 plain",
        "MAP 1504 33 plain",
        "TOUCH 1536",
        "MAP 42 2 plain",
        "READN 42 2",
        "FILL 42 2",
    ]
    assert "# command ./prog a" in text and "# valgrind 3.19.0" in text
    assert "# accesses raw 6, of these to anonymous memory 6" in text
    assert "ended" not in text


def test_gzip_and_plain_agree(tmp_path: Path) -> None:
    log = small_log(" S 04a2a000,8\n")
    assert imported(tmp_path, log) == imported(tmp_path, gzip.compress(log.encode()), "prog.log.gz")


def test_smallest_filter_that_fits(tmp_path: Path) -> None:
    mapped = call("mmap", f"0x0, {64 << 12}, 3, 34, 4294967295, 0", 0x4A2A000)
    sweep = "".join(f" L {0x4A2A000 + i * 4096:08x},8\n" for i in range(0, 40, 2))
    log = HEAD + " S 1fff000688,8\n" + mapped + sweep * 20
    path = tmp_path / "log"
    path.write_text(log)
    assert import_lackey(path, [8, 16, 32], operations=100).meta["filter"].startswith("32 entries, passed 21")
    with pytest.raises(InputError, match="more than 100 operations with a repeat filter of 16"):
        import_lackey(path, [8, 16], operations=100)
    cut = import_lackey(path, 8, operations=100, cut=True)
    assert len(cut) == 100 and cut.meta["cut"] == "after 100 operations"


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "no accesses found; a log of valgrind --tool=lackey"),
        (HEAD, "no accesses found"),
        (HEAD + " S 1fff000688,8\n", "no system calls; run valgrind with --trace-syscalls=yes"),
        (small_log(" L 04a2a0zz,8\n"), ":6: damaged access line ' L 04a2a0zz,8'"),
        (small_log(" L 04a2a000\n"), ":6: damaged access line"),
        (small_log(" L 04a2a000,x\n"), ":6: damaged access line"),
        (small_log(" L 4a2a000,8\n"), ":6: damaged access line"),
        (small_log("I  04a2a000,3\n S 04a2 000,8\n"), ":7: damaged access line"),
        (small_log(" S 1fff0006881fff000688,8\n"), ":6: damaged access line"),
    ],
)
def test_bad_logs(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        imported(tmp_path, log)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_options_and_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such lackey log"):
        import_lackey(tmp_path / "none")
    with pytest.raises(InputError, match="at least 8 entries"):
        imported(tmp_path, small_log(""), entries=4)
    with pytest.raises(InputError, match="at least 1"):
        imported(tmp_path, small_log(""), operations=0)
    with pytest.raises(InputError):
        imported(tmp_path, np.random.default_rng(0).bytes(100_000))
    with pytest.raises(InputError, match="a line of more than"):
        imported(tmp_path, b"x" * 5000, piece_bytes=1000)


def test_log_cut_off_is_named(tmp_path: Path) -> None:
    log = small_log(" S 04a2a000,8\n")
    text = imported(tmp_path, log[: log.rindex("==7==") - 4])
    assert "# ended early" in text


PROGRAM = r"""
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>
int main(void)
{
    char *p = mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 256; i++)
            p[i * 4096] = 1;
    int fd = open("/proc/self/exe", O_RDONLY);
    if (read(fd, p + 4090, 10000) != 10000)
        return 1;
    p = mremap(p, 1 << 20, 1 << 21, MREMAP_MAYMOVE);
    madvise(p, 1 << 16, MADV_DONTNEED);
    madvise(p, 1 << 20, MADV_HUGEPAGE);
    munmap(p + 8192, 4096);
    char *q = malloc(1000000);
    memset(q, 1, 1000000);
    free(q);
    char *z = malloc(1000);
    return z[5] = 0;
}
"""


def test_real_run(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not shutil.which("valgrind") or not compiler:
        pytest.skip("needs valgrind and a C compiler")
    (tmp_path / "p.c").write_text("#define _GNU_SOURCE\n" + PROGRAM)
    subprocess.run([compiler, "-O1", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    log = tmp_path / "p.log"
    options = ["--tool=lackey", "--trace-mem=yes", "--trace-syscalls=yes", f"--log-file={log}"]
    subprocess.run(["valgrind", *options, tmp_path / "p"], check=True)
    workload = import_lackey(log)
    twin = Twin(log.read_text(), 64)
    assert list(zip(workload.kind.tolist(), workload.v.tolist(), workload.n.tolist(), strict=True)) == [
        operation[:3] for operation in twin.operations
    ]
    assert "ended" not in workload.meta
    text = format_workload(workload).splitlines()
    fills = [i for i, line in enumerate(text) if line.startswith("FILL") and line.endswith(" 256")]
    assert len(fills) == 2  # both passes: the filter holds 64 pages
    assert any(line.startswith("DONTNEED") and line.endswith(" 16") for line in text[fills[1] :])
    assert any(line.startswith("MAP") and line.endswith("huge") for line in text[fills[1] :])
    assert any(line.startswith("UNMAP") and line.endswith(" 1") for line in text[fills[1] :])
    assert Kind.TOUCH in workload.kind
