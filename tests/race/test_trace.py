"""The steps of two CPUs as read from a trace of a real kernel (experiments.race_window.trace)."""

import errno

import pytest

from experiments.race_window.trace import guest_script, steps_of, table

LOSES = """\
threads-61 [000] ..... 1000: fault: (do_swap_page+0x0/0x900)
threads-61 [000] d.... 2000: check: (__swap_cache_add_check+0x0/0x90)
threads-62 [001] ..... 2100: fault: (do_swap_page+0x0/0x900)
threads-61 [000] d.... 2200: checked: (swap_cache_alloc_folio+0x9 <- __swap_cache_add_check) ret=0
threads-61 [000] ..... 2300: allocate: (vma_alloc_folio_noprof+0x0/0xf0)
threads-62 [001] d.... 2400: check: (__swap_cache_add_check+0x0/0x90)
threads-62 [001] d.... 2500: checked: (swap_cache_alloc_folio+0x9 <- __swap_cache_add_check) ret=0
threads-61 [000] ..... 4300: allocated: (swap_cache_alloc_folio+0x1 <- vma_alloc_folio_noprof)
threads-61 [000] d.... 4400: check: (__swap_cache_add_check+0x0/0x90)
threads-61 [000] d.... 4500: checked: (swap_cache_alloc_folio+0x9 <- __swap_cache_add_check) ret=0
threads-62 [001] d.... 6500: check: (__swap_cache_add_check+0x0/0x90)
threads-62 [001] d.... 6600: checked: (swap_cache_alloc_folio+0x9 <- __swap_cache_add_check) ret=-17
threads-61 [000] ..... 7500: left: (folio_free_swap+0x9/0x90 <- swap_cache_del_folio)
threads-62 [001] d.... 7600: check: (__swap_cache_add_check+0x0/0x90)
threads-62 [001] d.... 7700: checked: (swap_cache_alloc_folio+0x9 <- __swap_cache_add_check) ret=-2
"""


def test_one_wins_and_one_loses_and_comes_too_late() -> None:
    steps = steps_of(LOSES, 100.0)
    assert steps.first == {0: 2, -errno.ENOENT: 1} and steps.second == {0: 1, -errno.EEXIST: 1}
    assert steps.allocation == [20.0]
    assert steps.between == {0: [22.0], -errno.EEXIST: [40.0]}
    assert steps.cached == [30.0] and steps.retry == [11.0]
    assert "first checks:  passed 2, -ENOENT 1" in table(steps)


def test_a_new_fault_begins_with_a_first_check() -> None:
    again = LOSES.replace("4400: check", "4350: fault: (do_swap_page)\n threads-61 [000] d.... 4400: check")
    steps = steps_of(again, 100.0)
    assert steps.first == {0: 3, -errno.ENOENT: 1} and steps.second == {-errno.EEXIST: 1}
    assert not steps.cached


def test_after_a_first_check_that_failed_comes_a_first_check() -> None:
    again = "threads-62 [001] d.... 7800: check: (x)\nthreads-62 [001] d.... 7900: checked: (x) ret=0\n"
    steps = steps_of(LOSES + again, 100.0)
    assert steps.first == {0: 3, -errno.ENOENT: 1} and steps.second == {0: 1, -errno.EEXIST: 1}


@pytest.mark.parametrize("function", ["__swap_cache_add_check", "swap_cache_del_folio", "do_swap_page"])
def test_the_guest_probes_what_is_read(function: str) -> None:
    assert f" {function} " in guest_script("64", ["zram.ko"])
