"""Two CPUs on real kernels: what holds of checks and counters in every run holds in sampled lanes too."""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from experiments.race_window.shares import (
    FRAME,
    NOT_CLEARED,
    SIZES,
    Fit,
    Shares,
    alike,
    fit,
    grid,
    held_out,
    kind,
    recorded_shares,
    recordings,
    sample_shares,
    sampled_shares,
    within,
)
from experiments.real_kernel.errors import RecordingError
from experiments.real_kernel.threads import PHASES, Phase, read_threads
from jaxswap.race.lanes import ERRORS, Counts, Lanes
from jaxswap.swaptable.forms import FORMS
from jaxswap.swaptable.geometry import EBUSY
from tests.race.test_lanes import BUSY

DATA = Path(__file__).parents[1] / "data" / "recordings"
STORED = {
    f"{path.parent.parent.name}/{path.name.removesuffix('.txt.gz')}": path
    for path in sorted(DATA.glob("*/threads/*.txt.gz"))
}
TRACED = [name for name in STORED if name.startswith(("7.2.", "7.3."))]


def phases_of(name: str) -> list[Phase]:
    return read_threads(gzip.decompress(STORED[name].read_bytes()).decode())


@dataclass(frozen=True)
class Checked:
    """What both a recording and a sample say, by pages of a range."""

    checks: dict[tuple[int, int], int]
    swapped_in: dict[int, int]
    fallback: dict[int, int]
    """Of more than one page."""


def of_phase(phase: Phase) -> Checked:
    large = {kb // 4: phase.counters[f"{kb}kB swpin"] for kb in (16, 32, 64, 128)}
    single = phase.counters["pswpin"] - sum(pages * n for pages, n in large.items())
    fallback = {pages: phase.counters[f"{4 * pages}kB swpin_fallback"] for pages in large}
    return Checked(phase.checks, large | {1: single}, fallback)


def of_counts(counts: Counts) -> Checked:
    both = counts.check.sum(0)
    checks = {
        (error, 1 << n): int(both[e, n]) for e, error in enumerate(ERRORS) for n in range(counts.orders)
    }
    swapped_in = {1 << n: int(counts.inserted[n]) for n in range(counts.orders)}
    return Checked(checks, swapped_in, {1 << n: int(counts.fallback[n]) for n in range(1, counts.orders)})


def of_error(checked: Checked, error: int, pages: int) -> int:
    return checked.checks.get((error, pages), 0)


def holds_to_both_checks(checked: Checked) -> None:
    """Who swaps in has passed two checks; who has passed one and not swapped in has failed the second."""
    for pages, folios in checked.swapped_in.items():
        failed = sum(of_error(checked, error, pages) for error in ERRORS[1:])
        second = of_error(checked, 0, pages) - 2 * folios
        assert 0 <= second <= failed, (pages, second, failed)


def counts_what_is_busy(checked: Checked) -> None:
    for pages, n in checked.fallback.items():
        assert n == of_error(checked, -EBUSY, pages), pages


@pytest.mark.parametrize("name", STORED)
def test_a_recording_is_whole(name: str) -> None:
    phases = phases_of(name)
    said = [f"{p.threads} {p.rounds} {p.ranges} {p.mode}" for p in phases]
    assert said == list(PHASES)
    assert all(phase.bad == 0 and phase.missed == 0 for phase in phases)
    assert sum(phase.counters["pswpin"] for phase in phases) > 50_000
    assert all(bool(phase.checks) == (name in TRACED) for phase in phases)


@pytest.mark.parametrize("name", TRACED)
def test_identities_hold_in_every_recorded_phase(name: str) -> None:
    phases = phases_of(name)
    for phase in phases:
        holds_to_both_checks(of_phase(phase))
        counts_what_is_busy(of_phase(phase))
    alone = of_phase(phases[0])
    assert {error for error, _ in alone.checks} == {0} and phases[0].threads == 1
    assert all(of_error(alone, 0, pages) == 2 * n for pages, n in alone.swapped_in.items())
    assert sum(of_phase(phase).fallback[16] for phase in phases) > 0
    assert sum(recorded_shares(phase).second for phase in phases[1:3]) > 0


@pytest.mark.parametrize("name", [name for name in STORED if name not in TRACED])
def test_7_1_counts_no_fallback(name: str) -> None:
    assert name.startswith("7.1.")
    assert not any(any(of_phase(phase).fallback.values()) for phase in phases_of(name))


PLENTY = replace(BUSY, frame_fails=(0.0,) * 5, charge_fails=0.0)


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form.checks_under_lock])
def test_identities_hold_in_sampled_lanes(form: str) -> None:
    counts = Lanes(replace(PLENTY, form=FORMS[form]), 3, np.arange(120)).run()
    checked = of_counts(counts)
    holds_to_both_checks(checked)
    counts_what_is_busy(checked)
    assert sampled_shares(counts).second == counts.check[0, 0].sum() - counts.inserted.sum() > 0
    assert not FORMS[form].thp or sum(checked.fallback.values()) > 0


def test_sampled_before_phase_4_counts_no_fallback() -> None:
    counts = Lanes(replace(PLENTY, form=FORMS["pre-phase4"]), 3, np.arange(120)).run()
    assert counts.thrown.sum() > 0 and not any(of_counts(counts).fallback.values())


FITS = {
    ("7.3.4", "64kB-earlier-boot1"): (2**-6, 0.4),
    ("7.3.4", "64kB-earlier-boot2"): (2**-6, 0.4),
    ("7.3.4", "64kB-first-boot1"): (2**-5, 0.3),
    ("7.2.12", "64kB-boot1"): (2**-2, 0.45),
    ("7.2.12", "64kB-boot2"): (2**-3, 0.5),
    ("7.2.12", "64kB-boot3"): (2**-2, 0.35),
    ("7.2.12", "64kB-boot4"): (2**-3, 0.45),
    ("7.3.4", "64kB-boot1"): (2**-1, 0.45),
    ("7.3.4", "64kB-boot2"): (2**-2, 0.5),
    ("7.3.4", "64kB-boot3"): (2**-2, 0.55),
    ("7.3.4", "64kB-boot4"): (2**-3, 0.45),
}
"""Start and sigma that :func:`fit` finds on each recording; the slow test below finds them."""
INSIDE = {
    ("7.3.4", "64kB-earlier-boot1"): ("64kB", "16-128kB"),
    ("7.3.4", "64kB-earlier-boot2"): ("64kB", "16-128kB"),
    ("7.2.12", "64kB-boot1"): ("64kB",),
    ("7.2.12", "64kB-boot2"): ("64kB",),
    ("7.2.12", "64kB-boot4"): ("64kB",),
    ("7.3.4", "64kB-boot2"): ("64kB",),
    ("7.3.4", "64kB-boot3"): ("16-128kB",),
    ("7.3.4", "64kB-boot4"): ("64kB",),
}
"""At which sizes both shares lie in the spread; docs/race.md says what lies outside, and why."""


def others(one: tuple[str, str], size: str) -> list[Shares]:
    return held_out(recordings(DATA), one, size, kind(one[1]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("one", FITS, ids=" ".join)
def test_whether_shares_lie_in_the_spread_of_the_others_with_times_fitted_on_one_recording(
    one: tuple[str, str], size: str
) -> None:
    spread = others(one, size)
    if not spread:
        pytest.skip("the only recording of its kind and size")
    eexist, enoent, _ = within(sample_shares(SIZES[size], *FITS[one]), spread)
    assert (eexist and enoent) == (size in INSIDE.get(one, ()))


def test_a_frame_that_takes_as_long_for_every_size_leaves_too_few_gone() -> None:
    start, sigma = FITS["7.3.4", "64kB-earlier-boot1"]
    spread = others(("7.3.4", "64kB-earlier-boot1"), "16-128kB")
    as_long_as_at_64_kb = sample_shares(5, start, sigma, frame=FRAME / 2)
    assert as_long_as_at_64_kb.enoent / as_long_as_at_64_kb.checks < min(
        shares.enoent / shares.checks for shares in spread
    )


@pytest.mark.parametrize(("size", "order"), SIZES.items())
def test_where_frames_are_not_cleared_hardly_one_is_gone(size: str, order: int) -> None:
    cleared, not_cleared = (
        sum(found[1:], found[0])
        for its_kind in ("first", "first-noinit")
        for found in [held_out(recordings(DATA), ("", ""), size, its_kind)]
    )
    assert not_cleared.enoent / not_cleared.folios < cleared.enoent / cleared.folios / 3
    sampled = sample_shares(order, *FITS["7.3.4", "64kB-first-boot1"], frame=NOT_CLEARED)
    _, enoent, _ = within(sampled, held_out(recordings(DATA), ("", ""), size, "first-noinit"))
    assert enoent


@pytest.mark.slow
def test_the_fit_of_each_recording() -> None:
    sampled = grid()
    found: dict[tuple[str, str], Fit] = {}
    for its_kind in ("earlier", "first", ""):
        for name, its in alike(recordings(DATA), "64kB", its_kind).items():
            found[name] = fit(sum(its[1:], its[0]), sampled)
    assert found == {name: pytest.approx(one) for name, one in FITS.items()}


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda text: text.replace("=== mt ", "=== "), "no phase"),
        (lambda text: text[: text.rindex("after:")], "2 4 64 fork"),
        (lambda text: text.replace("MT same", "XT same"), "2 10 64 same"),
    ],
)
def test_a_recording_cut_off_is_refused(break_it, said: str) -> None:
    text = gzip.decompress(STORED["7.3.4/64kB-earlier-boot2"].read_bytes()).decode()
    with pytest.raises(RecordingError, match=said):
        read_threads(break_it(text))
