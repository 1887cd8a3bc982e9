"""The config of a sample, the shipped one, and what is written."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxswap.errors import InputError
from jaxswap.race import sample as sampling
from jaxswap.race.draws import QUANTILES, Time, drawn, streams
from jaxswap.race.lanes import OCTAVE, Counts
from jaxswap.race.sample import Sampled, sample, window_quantile
from jaxswap.race.sample_config import load_sample
from jaxswap.report.race_sample import NAMES, checking_ns, million, sample_text, write_sample
from tests.reference import race_lanes

SHIPPED = Path(__file__).parents[2] / "configs" / "race_window.toml"


@pytest.fixture(scope="module")
def cells() -> list[Sampled]:
    config = replace(load_sample(SHIPPED), requests=24_000, cpus=(2, 8, 32), forms=("pre-phase4", "merged"))
    return sample(config)


def test_merged_throws_fewer_large_frames_away_than_before_phase_4(cells: list[Sampled]) -> None:
    before, merged = cells[:3], cells[3:]
    for old, new in zip(before, merged, strict=True):
        assert (old.cpus, old.form, new.form) == (new.cpus, "pre-phase4", "merged")
        assert 0 < million(new.counts.thrown[1:].sum(), new) < million(old.counts.thrown[1:].sum(), old)
        assert million(new.counts.thrown[0], new) < million(old.counts.thrown[0], old) / 2


def test_the_double_check_costs_lock_time(cells: list[Sampled]) -> None:
    for old, new in zip(cells[:3], cells[3:], strict=True):
        assert checking_ns(new) > checking_ns(old) > 0


def test_lanes_at_a_time_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(load_sample(SHIPPED), requests=2_000, cpus=(8,), forms=("merged",))
    whole = sample(config)[0].counts
    monkeypatch.setattr(sampling, "LANES", 64)
    done: list[tuple[int, int]] = []
    parts = sample(config, lambda *both: done.append(both))[0].counts
    for name, value in vars(whole).items():
        assert np.array_equal(value, getattr(parts, name)), name
    assert done == [(512, 2000), (1024, 2000), (1536, 2000), (2000, 2000)]


def test_what_is_written_is_the_same_for_equal_counts(cells: list[Sampled], tmp_path: Path) -> None:
    text = sample_text(cells, ["made by", "a test"])
    for folder in ("one", "two"):
        write_sample(cells, tmp_path / folder, text, ["made by", "a test"])
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(NAMES)
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with open(tmp_path / "one" / "sample.csv") as file:
        assert file.readline() == "# made by\n" and file.readline() == "# a test\n"
        rows = list(csv.DictReader(file))
    thrown = [row for row in rows if row["count"] == "thrown" and row["form"] == "merged"]
    assert [int(row["value"]) for row in thrown if row["cpus"] == "8"] == cells[4].counts.thrown.tolist()
    assert "64kB" in text and text.endswith("made by\na test")


def test_draws_are_those_of_the_plain_twin() -> None:
    stream = streams(2**32 - 1, np.array([0, 5, 10**8]), 64)
    for row, lane in enumerate((0, 5, 10**8)):
        for actor in (0, 1, 63):
            plain = race_lanes.stream_of(2**32 - 1, lane, actor)
            assert int(stream[row, actor]) == plain
            assert int(drawn(stream[row], np.array([7]))[actor]) == race_lanes.drawn(plain, 7)


@pytest.mark.parametrize(
    ("time", "mean", "median"),
    [
        (Time("constant", 1000.0), 1000, 1000),
        (Time("exponential", 1e6), 1e6, 1e6 * np.log(2)),
        (Time("lognormal", 1e6, 0.5), 1e6 * np.exp(0.125), 1e6),
    ],
)
def test_times_have_the_mean_and_median_they_should(time: Time, mean: float, median: float) -> None:
    table = replace(time, growth=1.0).table(3)
    assert table.shape == (3, QUANTILES) and (np.diff(table) >= 0).all()
    assert table.mean(1) == pytest.approx([mean, 2 * mean, 4 * mean], rel=1e-3)
    assert np.median(table[0]) == pytest.approx(median, rel=1e-3)
    assert Time("constant", 0.0).table(1).min() == 1


def test_a_quantile_of_the_window_is_the_upper_edge_of_its_bin() -> None:
    counts = Counts(1)
    counts.window[0, 10 * OCTAVE] = 9
    counts.window[0, 20 * OCTAVE] = 1
    assert window_quantile(counts, 0, 0.5) == 2 ** (10 + 1 / OCTAVE)
    assert window_quantile(counts, 0, 0.99) == 2 ** (20 + 1 / OCTAVE)
    assert np.isnan(window_quantile(Counts(1), 0, 0.5))


BROKEN = {
    "no cpus": ("cpus = [2, 4, 8, 16, 32, 64]", "", "cpus: is missing; write [2, 8, 64]"),
    "one cpu": ("cpus = [2,", "cpus = [1,", "cpus: 1 is out of range; take 2 to 64"),
    "cpus a word": ("cpus = [2,", "cpus = ['two',", "cpus: 'two' does not belong there"),
    "a form that is none": ('"v4"', '"v5"', "forms: 'v5' is no form; known: pre-phase4"),
    "a form twice": ('"v4"', '"merged"', "names one twice"),
    "seed": ("seed = 1", "seed = -1", "seed: -1 is out of range"),
    "no requests": ("requests = 250_000", "requests = 0", "requests: 0 is out of range; take 1 to"),
    "unknown key": ("seed = 1", "seeds = 1", "seeds: unknown key; did you mean 'seed'?"),
    "slots": ("slots = 64", "slots = 48", "range.slots: 48 is no power of two"),
    "orders": (
        "orders = [0, 1, 2, 3, 4]",
        "orders = [0, 7]",
        "range.orders: 7 is out of range; 64 slots have",
    ),
    "no order 0": ("orders = [0, ", "orders = [", "lacks order 0"),
    "hot slots": ("hot_slots = 16", "hot_slots = 128", "range.hot_slots: 128 is out of range; take 1 to 64"),
    "hot": ("hot = 0.5", "hot = 1.5", "range.hot: 1.5 is out of range; take 0 to 1"),
    "hot no number": ("hot = 0.5", "hot = nan", "range.hot: nan is out of range"),
    "nobody faults": (
        "readahead = 0.05",
        "readahead = 0.9",
        "others.readahead: all others together are 0.95",
    ),
    "fails": ("0.02, 0.05]", "0.02]", "fails.frame: 4 shares; write 5, for orders 0 to 4"),
    "fails always": ("0.02, 0.05]", "0.02, 1]", "fails.frame: 1 is out of range; take 0 to 0.9"),
    "charge a word": (
        "charge = 0.001",
        "charge = 'x'",
        "fails.charge: expected a share such as 0.05, got 'x'",
    ),
    "no unit": ('unit = "ns"', "", "times.unit: is missing; write ns, us or ms"),
    "unit": ('unit = "ns"', 'unit = "s"', "times.unit: 's' is none of them; write ns, us or ms"),
    "no source": ('source = "invented, not calibrated"', "", "times.source: say in up to 100 characters"),
    "no time": ("suit = {", "# suit = {", "times.suit: is missing"),
    "a time of no kind": ("suit = { lognormal", "suit = { normal", "times.suit: needs one of constant"),
    "a time of two": ("suit = {", "suit = { constant = 1,", "has constant, lognormal"),
    "no sigma": ("150, sigma = 0.5", "150", "times.suit.sigma: is missing"),
    "sigma": ("150, sigma = 0.5", "150, sigma = 11", "times.suit.sigma: 11 is out of range; take 0 to 10"),
    "time negative": ("lognormal = 150", "lognormal = -150", "times.suit.lognormal: -150 is out of range"),
    "time huge": ("lognormal = 150", f"lognormal = {'9' * 400}", "is out of range; take 0 to 2147483647"),
    "time too long": ('unit = "ns"', 'unit = "ms"', "the longest a step may take is 2 s"),
    "growth where there is no order": (
        "150, sigma = 0.5",
        "150, sigma = 0.5, growth = 1",
        "suit.growth: unknown",
    ),
    "not TOML": ("seed = 1", "seed =", "is not TOML"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_config_is_one_line(case: str, tmp_path: Path) -> None:
    old, new, said = BROKEN[case]
    text = SHIPPED.read_text()
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(said)) as error:
        load_sample(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_config_that_is_not_there_names_the_shipped_one() -> None:
    with pytest.raises(InputError, match=r"no\.toml: no such config file; .*configs/race_window\.toml"):
        load_sample("no.toml")
