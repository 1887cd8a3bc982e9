"""The programs whose recordings come with jaxswap: what each shows, its command, and its input files."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxswap.workload.generate import splitmix64

_SOURCES = Path(__file__).parent / "csrc"


@dataclass(frozen=True)
class Program:
    """A recording that can be made again: what it shows, its command, and what writes its input files."""

    about: str
    command: tuple[str, ...]
    write_input: Callable[[Path], None]


def sort_input(folder: Path) -> None:
    """25,000 log-like lines of 600 to 1,400 bytes (25 MB) in random order of their first 16 characters."""
    keys = splitmix64(1, 0, 25_000).tolist()
    filler = " ".join(f"field{i}={i * i}" for i in range(120))
    lines = [f"{key:016x} {filler[: 583 + key % 801]}\n" for key in keys]
    (folder / "lines.txt").write_text("".join(lines))


def python_input(folder: Path) -> None:
    """A program that fills a dict with 20,000 records of 800 bytes, then looks them up and changes them, a
    few keys most often, and replaces every fiftieth."""
    (folder / "records.py").write_text(
        """\
def fill(count):
    table = {}
    key = 1
    for i in range(count):
        key = (key * 1103 + 12345) & 0xFFFFF
        table[key] = bytearray(800)
    return table

def use(table, count):
    keys = list(table)
    many, x, found = len(keys), 7, 0
    for i in range(count):
        x = (x * 1103 + 12345) & 0xFFFFF
        key = keys[((x & 0x3FF) * (x >> 10) >> 10) * many >> 10]
        record = table[key]
        found += record[300]
        if not i & 3:
            record[i & 511] = 1
        if not i % 50:
            table[key] = bytearray(900)
    return found

use(fill(20000), 30000)
"""
    )


def sqlite_input(folder: Path) -> None:
    """SQL that fills an indexed in-memory table with 9,000 rows of 1.8 KB, looks rows up by key, low keys
    most often (they lie scattered), changes some, reads all in order, and looks up again."""
    look_up = """\
with recursive q(i, x) as
(select 1, {0} union all select i+1, (x * 12899 + 4321) % 65521 from q where i < {1})
select count(*), sum(unicode(substr(t.body, 1700, 1))) from q join t on t.k = (q.x % 95) * (q.x % 89);
"""
    fill = """\
create table t(id integer primary key, k integer, body blob);
create index by_k on t(k);
with recursive c(x) as (select 1 union all select x+1 from c where x < 9000)
insert into t select x, (x * 7919) % 9001, zeroblob(1800) from c;
"""
    change = """\
update t set body = zeroblob(1800) where k between 1000 and 1400;
select count(*) from t where length(body) = 1800;
"""
    (folder / "rows.sql").write_text(fill + look_up.format(1, 4000) + change + look_up.format(5, 3000))


def jq_input(folder: Path) -> None:
    """A JSON list of 6,000 orders in random order of their keys."""
    draws = splitmix64(2, 0, 6_000).tolist()
    orders = [
        {"id": i, "customer": f"c{d % 400}", "items": [{"sku": d >> s & 4095, "n": s} for s in range(1, 6)]}
        for i, d in enumerate(draws)
    ]
    (folder / "orders.json").write_text(json.dumps(orders))


def compile_input(folder: Path) -> None:
    """A C file of 16 functions that call each other, with loops, switches and arrays."""
    parts = ["typedef struct { int a[16]; double d; struct { char *s; unsigned u; } in; } rec;\n"]
    for i in range(16):
        cases = "".join(f"  case {c}: r->a[{c}] += x * {i + c}; break;\n" for c in range(8))
        loop = f" for (int i = 0; i < x; i++) {{\n  switch (i & 7) {{\n{cases}  }}\n"
        rest = f"  s += r->a[i & 15] ^ (int)r->d;\n  if (s > {i}) r->in.u += s;\n }}\n"
        last = f" return s + f{i * 7 % i}(r, s >> 3);\n}}\n" if i else " return s;\n}\n"
        parts.append(f"int f{i}(rec *r, int x)\n{{\n int s = 0;\n{loop}{rest}{last}")
    (folder / "many.c").write_text("".join(parts))


def tsort_input(folder: Path) -> None:
    """30,000 pairs of names, the first before the second, of 24,000 names in random order."""
    draws = splitmix64(7, 0, 30_000)
    first, second = (draws % 24_000).tolist(), (draws // 24_000 % 24_000).tolist()
    pairs = [(min(a, b), max(a, b)) for a, b in zip(first, second, strict=True) if a != b]
    names = [f"{name:016x}" for name in splitmix64(8, 0, 24_000).tolist()]
    (folder / "pairs.txt").write_text("".join(f"{names[a]} {names[b]}\n" for a, b in pairs))


def shuf_input(folder: Path) -> None:
    """45,000 lines of 100 to 300 bytes (9 MB), and bytes for their order."""
    draws = splitmix64(9, 0, 45_000)
    filler = " ".join(f"{i:x}" for i in range(200))
    (folder / "lines.txt").write_text("".join(f"{d:x} {filler[: 84 + d % 200]}\n" for d in draws.tolist()))
    (folder / "random").write_bytes(splitmix64(10, 0, 100_000).tobytes())


def redis_input(folder: Path) -> None:
    """A redis configuration and an append-only file, whose commands redis-server runs when it starts: 12,000
    values of 600 to 1,200 bytes set, 20,000 gets of which some keys are most often, sets among them,
    lists and hashes, then the shutdown."""
    commands: list[tuple[str, ...]] = []
    for i, draw in enumerate(splitmix64(5, 0, 12_000).tolist()):
        commands.append(("SET", f"key:{i}", "v" * (600 + draw % 601)))
    for i, draw in enumerate(splitmix64(6, 0, 20_000).tolist()):
        key = (draw & 0xFFF) * (draw >> 12 & 0xFFF) * 12_000 >> 24
        if i % 10:
            commands.append(("GETRANGE", f"key:{key}", "300", "310"))
        elif i % 20:
            commands.append(("SET", f"key:{key}", "w" * (500 + (draw >> 24) % 900)))
        else:
            commands.append(("HSET", f"hash:{key % 50}", f"field{key}", "x" * 40))
    commands.append(("SHUTDOWN", "NOSAVE", "NOW", "FORCE"))
    data = b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
        for words in commands
    )
    (folder / "log").mkdir()
    (folder / "log" / "log.1.incr.aof").write_bytes(data)
    (folder / "log" / "log.manifest").write_text("file log.1.incr.aof seq 1 type i\n")
    (folder / "redis.conf").write_text(
        "port 0\nunixsocket redis.socket\nsave ''\nactiverehashing no\n"
        "appendonly yes\nappenddirname log\nappendfilename log\n"
    )


def c_input(name: str) -> Callable[[Path], None]:
    """A program of csrc/, compiled."""

    def write(folder: Path) -> None:
        source = _SOURCES / f"{name}.c"
        subprocess.run(["gcc", "-O2", "-o", folder / name, source], check=True)

    return write


PROGRAMS = {
    "sort": Program(
        "GNU sort of a 25 MB text in memory: filled in order, merged and written out at random",
        ("sort", "--parallel=1", "-S", "30M", "lines.txt"),
        sort_input,
    ),
    "python": Program(
        "CPython filling a dict with records, then skewed look-ups and changes: pointers, reference counts",
        ("/usr/bin/python3", "-S", "-s", "records.py"),
        python_input,
    ),
    "sqlite": Program(
        "sqlite3 in memory: rows inserted under an index, looked up by skewed keys, changed, scanned",
        ("sqlite3", "-batch", "-init", "rows.sql", ":memory:", ".quit"),
        sqlite_input,
    ),
    "join": Program(
        "a hash join in C: buckets built over 120,000 rows, probed by random keys",
        ("./hash_join",),
        c_input("hash_join"),
    ),
    "jq": Program(
        "jq grouping a list of orders: a tree of small reference-counted values, built, sorted, printed",
        ("jq", "[group_by(.customer)[] | {c: .[0].customer, n: map(.items[].n) | add}]", "orders.json"),
        jq_input,
    ),
    "redis": Program(
        "redis-server running its append-only file: values of many sizes set, read by skewed keys, replaced",
        ("redis-server", "redis.conf"),
        redis_input,
    ),
    "compile": Program(
        "GCC's cc1 compiling a C file with -O1: pools and obstacks that grow, trees walked in many passes",
        ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-O1", "many.c", "-o", "many.s"),
        compile_input,
    ),
    "graph": Program(
        "a graph in C: CSR built from random edges, searched in breadth, two rounds of PageRank",
        ("./page_rank",),
        c_input("page_rank"),
    ),
    "shuf": Program(
        "GNU shuf of a 9 MB text: read into one buffer, written line by line in random order",
        ("shuf", "--random-source=random", "lines.txt"),
        shuf_input,
    ),
    "tsort": Program(
        "GNU tsort of 30,000 pairs: a balanced tree of small nodes and names, then walked by its edges",
        ("tsort", "pairs.txt"),
        tsort_input,
    ),
}
