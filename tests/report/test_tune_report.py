"""The report of a search on hand-made counts: what is said of training and held-out workloads, and where."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxswap.config import PolicyChoice
from jaxswap.machine import COUNTERS
from jaxswap.report.search import About, Evaluated, Search
from jaxswap.report.tune import mail_table, report_text, write_report
from jaxswap.sweep.result import WorkloadResult
from jaxswap.sweep.space import Candidate

KERNEL = Candidate("16 64", PolicyChoice("kernel"))
NEVER = Candidate("16 64", PolicyChoice("never"))
FUTURE = Candidate("16 64", PolicyChoice("clairvoyant"))
SHIFTS = [Candidate("16 64", PolicyChoice("headroom", (("shift", n), ("touch", 1)))) for n in (0, 2, 4)]

Counts = dict[str, int]


def result(name: str, *lanes: Counts) -> WorkloadResult:
    """A workload of 1,000 accesses, so that counts are per 1,000; a lane without counts was not replayed."""
    counters = np.zeros((len(lanes), len(COUNTERS)), np.int64)
    for row, lane in zip(counters, lanes, strict=True):
        row[COUNTERS.index("accesses")] = 1000 if lane else 0
        for counter, value in lane.items():
            row[COUNTERS.index(counter)] = value
    return WorkloadResult(
        name, 1000, 1000, 1 << 20, 1 << 19, 2 << 20, COUNTERS, counters, np.zeros(len(lanes), bool)
    )


def counts(failed: int, faults: int, useless: int, charge: int = 0) -> Counts:
    return {
        "thrown_folios": failed,
        "pgmajfault": faults,
        "useless_swapin": useless,
        "refused/swapin/charge/64kB": charge,
        "64kB/charge_refused": charge,
    }


def search(folder: Path, better: bool = True) -> Search:
    """A winner that fails less on all of eight recorded programs, if `better`; else on one alone. What knows
    the future was replayed on the recorded ones alone."""
    of_kernel = counts(20, 100, 30, charge=7)
    train = Evaluated(
        [KERNEL, NEVER, FUTURE, *SHIFTS],
        [
            result(
                "t", of_kernel, counts(1, 150, 0), counts(0, 80, 0), *(counts(n, 90, 20) for n in (3, 5, 7))
            )
        ],
    )
    held = [
        result(
            f"w{i}",
            of_kernel,
            counts(1, 150 + i, 0),
            counts(0, 80, 0),
            counts(12 + i % 3 if better or not i else 20, 100 - i, 29),
        )
        for i in range(8)
    ]
    synthetic = [result(f"s{i}", of_kernel, of_kernel, {}, counts(19, 200, 30)) for i in range(8)]
    about = {one.name: About("limit", one.name[0] == "w", one.name) for one in (*held, *synthetic)}
    return Search(
        folder,
        ("jaxswap 0", "command: jaxswap tune x.toml"),
        train,
        Evaluated([KERNEL, NEVER, FUTURE, SHIFTS[0]], [*held, *synthetic]),
        np.array([2, 3, 4, 5, 1, 0]),
        2,
        about,
        0,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory of a report, and what is printed."""
    folder = tmp_path_factory.mktemp("written")
    return folder, write_report(search(folder))


def part(text: str, title: str) -> str:
    return text[text.index(title) :].split("\n\n")[0]


def row(table: str, word: str) -> str:
    return next(line for line in table.splitlines() if word in line)


def test_recorded_and_synthetic_are_judged_apart(tmp_path: Path) -> None:
    text = report_text(search(tmp_path))
    recorded = part(text, "Held out: limit, recorded programs")
    assert "8 units" in recorded
    assert row(recorded, "#1").endswith("dominates, on every unit")
    assert row(recorded, "shown").endswith("trades")
    assert row(recorded, "kernel's rule  ").split()[-4:] == ["20.00", "100.0", "30.00", "0"]
    assert row(part(text, "Held out: limit, synthetic"), "#1").endswith("trades")


def test_what_knows_the_future_is_marked_and_never_the_winner(written: tuple[Path, str]) -> None:
    found = search(written[0])
    text = report_text(found)
    assert row(part(text, "Training workloads"), "clairvoyant").startswith("knows the future")
    assert row(part(text, "Held out: limit, recorded"), "clairvoyant").endswith("dominates, on every unit")
    assert row(part(text, "Held out: limit, synthetic"), "clairvoyant").endswith("not replayed here")
    assert "no bound" in text and found.winner == 3
    rows = read_csv(written[0] / "figures" / "fronts.csv")
    drawn = [one for one in rows if one["policy"].startswith("clairvoyant")]
    assert [(one["real"], one["role"], one["front"]) for one in drawn] == [("1", "knows the future", "0")]


def test_failed_attempts_are_told_apart(tmp_path: Path) -> None:
    text = report_text(search(tmp_path))
    of = text[text.index("Held out: limit, recorded") : text.index("Held out: limit, synthetic")]
    assert row(of, "its charge refused").split()[-2:] == ["7.00", "0"]
    assert row(of, "slots had changed").split()[-2:] == ["13.00", "12.88"]
    assert row(of, "for another reason").split()[-2:] == ["0", "0"]


def test_the_page_of_results_has_the_tables_of_the_report(written: tuple[Path, str]) -> None:
    folder, text = written
    page = (folder / "results.md").read_text()
    assert page.startswith("    jaxswap 0\n    command: jaxswap tune x.toml\n\n")
    assert page.count("\n### Limit, ") == 2 and page.count("\n| :-- |") == 4

    def cells(text: str) -> list[list[str]]:
        lines = (line.strip(" |").replace("|", " ").split() for line in text.splitlines())
        return [line for line in lines if line and line[0] in ("kernel's", "shown", "#1", "folio")]

    of_report = cells(text[text.index("Held out: limit") :])
    assert len(cells(page)) == 8 and cells(page) == of_report[:8]


def test_a_winner_of_training_that_fails_to_win_elsewhere_is_not_called_better(tmp_path: Path) -> None:
    text = report_text(search(tmp_path, better=False))
    assert row(part(text, "Held out: limit, recorded"), "#1").endswith("not shown")
    assert "limit, recorded programs: not shown" in part(text, "The winner")
    training = part(text, "Training workloads")
    assert "dominates" not in training and row(training, "headroom shift=0").startswith("#1 ")


def test_the_winner_comes_with_its_rule_its_cost_and_the_sizes(tmp_path: Path) -> None:
    text = report_text(search(tmp_path))
    winner = text[text.index("The winner") :]
    assert "16 64 / headroom shift=0 touch=1" in winner
    assert "at most 0 PTEs and 0 slots for" in winner and "const int shift = 0, touch = 1;" in winner
    assert "page_counter_read(&memcg->memory)" in winner and "hugepages-64kB/enabled" in winner


def test_a_winner_that_splits_comes_with_its_cost_at_swapout(tmp_path: Path) -> None:
    found = search(tmp_path)
    splits = Candidate("16 64", PolicyChoice("split_sparse", (("least", 8), ("state", 2))))
    others = list(found.held_out.candidates)
    others[found.winner] = splits
    held = Evaluated(others, found.held_out.results)
    winner = report_text(dataclasses.replace(found, held_out=held)).partition("The winner")[2]
    assert "asked at swap-out too: reads at most 0 PTEs and 512 pages' content" in winner
    assert "const int least = 8, state = 2;" in winner and "split_folio_to_list" in winner


def test_the_table_for_a_mail_is_narrow_and_has_every_workload(tmp_path: Path) -> None:
    found = search(tmp_path)
    lines = mail_table(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:] if line.startswith("  ")] == [
        one.name for one in found.held_out.results
    ]
    assert row(mail_table(found), " w1 ").split() == [
        "w1",
        "20.00",
        "13.00",
        "100.0",
        "99.00",
        "30.00",
        "29.00",
    ]


def test_figures_are_written_with_their_data(written: tuple[Path, str]) -> None:
    folder, printed = written
    assert (folder / "report.txt").read_text().strip() in printed
    for name in ("fronts", "refusals", "sensitivity"):
        for suffix in (".png", ".pdf", ".csv"):
            assert (folder / "figures" / f"{name}{suffix}").stat().st_size > 100
    rows = read_csv(folder / "figures" / "fronts.csv")
    assert [(one["real"], one["role"], one["verdict"]) for one in rows][:3] == [
        ("1", "kernel's rule", ""),
        ("1", "shown", "trades"),
        ("1", "knows the future", "dominates, on every unit"),
    ]
    assert (rows[3]["role"], rows[3]["verdict"]) == ("#1", "dominates, on every unit")
    assert float(rows[3]["failed_fallbacks_mean"]) == pytest.approx(-7.125)
    refused = read_csv(folder / "figures" / "refusals.csv")
    assert [(one["path"], one["kB"], one["reason"], one["kernel"], one["winner"]) for one in refused] == [
        ("swap-in", "64", "charge", "7", "0")
    ] * 2
    around = read_csv(folder / "figures" / "sensitivity.csv")
    assert [(one["parameter"], one["value"], one["failed_fallbacks"]) for one in around] == [
        ("shift", "0", "-17"),
        ("shift", "2", "-15"),
        ("shift", "4", "-13"),
    ]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
