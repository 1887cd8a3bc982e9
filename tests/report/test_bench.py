"""The bench's files: what is drawn is in the CSV, and the figure is the same for the same rows."""

import csv
import json
from pathlib import Path

from jaxswap.bench.rows import KEYS, row
from jaxswap.report.bench import bench_text, write_bench


def timed(name: str, variant: str, case: str = "mostly intact", cores: int = 1, **sizes: int) -> dict:
    seconds = 1e-3 * len(variant)
    each = {"time": seconds, "time_min": 0.9 * seconds, "time_max": 1.2 * seconds, "rate": 1e6 / seconds}
    return row(name=name, variant=variant, case=case, cores=cores, device="cpu: x", **sizes, **each)


ROWS = [
    *(
        timed(name, variant, slots=slots, lanes=1)
        for slots in (1 << 16, 1 << 20)
        for name in ("add_check/planes", "add_check/words", "cache_alloc")
        for variant in ("JAX", "C, slot scan")
    ),
    timed("cache_alloc", "JAX", "fragmented", slots=1 << 16, lanes=1),
    timed("cache_alloc", "JAX", cores=2, slots=1 << 16, lanes=1),
    *(timed("replay/growth", variant, "growth", lanes=n) for n in (1, 64) for variant in ("JAX", "C")),
    row(name="replay/lanes", variant="JAX, worst", case="crowded", ratio_to_c=3.0, cores=1),
]


def test_files(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_bench(ROWS, folder, ["made by a test", "command: jaxswap bench"])
    names = ["bench.json", "bench.txt", "growth.csv", "growth.pdf", "growth.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "bench.json").read_text()) == ROWS
    assert bench_text(ROWS) in (tmp_path / "a" / "bench.txt").read_text()


def test_the_csv_holds_what_is_drawn(tmp_path: Path) -> None:
    """One core, one kind of contents; add_check from words beside the planes."""
    write_bench(ROWS, tmp_path, ["made by a test"])
    said, *lines = (tmp_path / "growth.csv").read_text().splitlines()
    drawn = list(csv.DictReader(lines))
    assert said == "# made by a test" and tuple(drawn[0]) == KEYS
    assert {(one["case"], one["cores"]) for one in drawn} == {("mostly intact", "1"), ("growth", "1")}
    assert len(drawn) == 2 * 2 + 2 + 2 * 2 + 2 * 2


def test_a_bench_without_c_or_growth_is_drawn_too(tmp_path: Path) -> None:
    write_bench([one for one in ROWS if one["name"] == "cache_alloc"][:1], tmp_path, ["made by a test"])
    assert (tmp_path / "growth.png").stat().st_size > 1000
