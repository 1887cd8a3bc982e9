"""Synthetic workloads by name: simple patterns, six of a posting on large swap-in, an allocator test.

A pattern gives the text of a workload, with generated accesses (jaxswap.workload.generate) where it has any.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from jaxswap.errors import InputError
from jaxswap.workload.generate import MOST_ACCESSES, ZIPF_ENTRIES, splitmix64
from jaxswap.workload.glibc_rand import rand

_MOST = 1 << 24  # pages: 64 GiB
_BLOCK = 16  # pages of 64 kB


@dataclass(frozen=True)
class Number:
    """A parameter: its name, its default, its range, what it is."""

    name: str
    default: int
    low: int
    high: int
    about: str


@dataclass(frozen=True)
class Pattern:
    """A synthetic workload: what it does, its parameters, and its lines after REGION's comments."""

    name: str
    about: str
    numbers: tuple[Number, ...]
    lines: Callable[[Mapping[str, int]], Iterator[str]]


def parse_pattern(text: str) -> tuple[Pattern, dict[str, int]]:
    """The pattern and its values of "NAME" or "NAME:KEY=VALUE,...". Raises InputError with what there is."""
    name, _, rest = text.partition(":")
    if name not in PATTERNS:
        raise InputError(f"no pattern {name!r}; there are: {', '.join(PATTERNS)}")
    pattern = PATTERNS[name]
    known = {number.name: number for number in pattern.numbers}
    values = {number.name: number.default for number in pattern.numbers}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise InputError(f"{text}: {name} has no parameter {part!r}; write {_form(pattern)}")
        number = known[key]
        if not value.isdigit() or len(value) > 20 or not number.low <= int(value) <= number.high:
            raise InputError(f"{text}: {key} is {value}; it must be {number.low} to {number.high}")
        values[key] = int(value)
    return pattern, values


def pattern_text(text: str) -> str:
    """The workload text of "NAME" or "NAME:KEY=VALUE,...". Raises InputError as parse_pattern does."""
    pattern, values = parse_pattern(text)
    given = ",".join(f"{key}={value}" for key, value in values.items())
    head = [f"# program {pattern.name}", f"# about {pattern.about}", f"# pattern {pattern.name}:{given}"]
    return "\n".join([*head, *pattern.lines(values)]) + "\n"


def _form(pattern: Pattern) -> str:
    return f"{pattern.name}:" + ",".join(f"{number.name}={number.default}" for number in pattern.numbers)


_PAGES = Number("pages", 4096, 1, _MOST, "pages of the region")
_COUNT = Number("count", 100_000, 1, MOST_ACCESSES, "accesses after the first writes")
_WRITES = Number("writes", 256, 0, 1024, "how many of 1,024 accesses write")
_SEED = Number("seed", 1, 0, 2**64 - 1, "of the draws")


def _sequential(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    yield f"SEQ 0 {x['pages']} {x['passes']} {x['writes']} {x['seed']}"


def _strided(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    yield f"STRIDE {x['step']} {x['count']} {x['writes']} {x['seed']}"


def _uniform(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    yield f"UNI 0 {x['pages']} {x['count']} {x['writes']} {x['seed']}"


def _zipf(x: Mapping[str, int]) -> Iterator[str]:
    if not x["together"] and x["pages"] & (x["pages"] - 1):
        raise InputError(f"zipf: pages is {x['pages']}; with together=0 it must be a power of 2")
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    yield f"ZIPF {x['count']} {x['writes']} {x['seed']} {x['together']}"


def _hotcold(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    hot = max(x["pages"] * x["hot"] // 1024, 1)
    yield f"HOT 0 {hot} {x['share']} {x['count']} {x['writes']} {x['seed']}"


def _phases(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield "INIT"
    part = max(x["pages"] // x["parts"], 1)
    for phase in range(x["phases"]):
        start = phase % x["parts"] * part
        if start + part > x["pages"]:
            raise InputError(f"phases: parts is {x['parts']}, more than the {x['pages']} pages")
        # odd phases walk their part, even ones jump about in it
        if phase % 2:
            passes = max(x["count"] // part, 1)
            yield f"SEQ {start} {part} {passes} {x['writes']} {x['seed'] + phase}"
        else:
            yield f"UNI {start} {part} {x['count']} {x['writes']} {x['seed'] + phase}"


def _filled(x: Mapping[str, int]) -> Iterator[str]:
    """Fill the target, then write elsewhere to push it out."""
    yield f"REGION {x['target'] + x['pressure']} plain"
    yield f"FILL 0 {x['target']}"
    yield f"FILL {x['target']} {x['pressure']}"


def _usama(x: Mapping[str, int]) -> Iterator[str]:
    yield f"REGION {x['pages']} plain"
    yield f"FILL 0 {x['pages']}"
    yield f"PAGEOUT 0 {x['pages']}"
    yield f"READN 0 {x['pages']}"


def _seq64(x: Mapping[str, int]) -> Iterator[str]:
    yield from _filled(x)
    yield f"READN 0 {x['target']}"


def _stride64_sparse(x: Mapping[str, int]) -> Iterator[str]:
    yield from _filled(x)
    yield from (f"READ {v}" for v in range(0, x["target"], _BLOCK))


def _blocks(x: Mapping[str, int]) -> list[int]:
    """First pages of the target's 64 kB blocks in an order drawn at random."""
    blocks = -(-x["target"] // _BLOCK)
    return (np.argsort(splitmix64(x["seed"], 0, blocks), kind="stable") * _BLOCK).tolist()


def _random64_sparse(x: Mapping[str, int]) -> Iterator[str]:
    yield from _filled(x)
    yield from (f"READ {v}" for v in _blocks(x))


def _random64_full(x: Mapping[str, int]) -> Iterator[str]:
    yield from _filled(x)
    yield from (f"READN {v} {min(_BLOCK, x['target'] - v)}" for v in _blocks(x))


def _allocator_test(x: Mapping[str, int]) -> Iterator[str]:
    """tools/mm/thp_swap_allocator_test.c (7.3) with its first area at page 0 and its second behind it."""
    large, small = x["large"] * 256, x["small"] * 256
    draws = rand()

    def draw(count: int, places: int) -> list[int]:
        return [number % places for number in islice(draws, count)]

    yield f"REGION {large + small} plain"
    yield f"MAP 0 {large} huge"
    if small:
        yield f"MAP {large} {small} nohuge"
    yield f"FILL 0 {large}"
    yield f"PAGEOUT 0 {large}"
    if small:
        yield f"FILL {large} {small}"
        yield f"PAGEOUT {large} {small}"
    for iteration in range(1, x["iterations"] + 1):
        if x["aligned"]:
            yield from (f"FILL {_BLOCK * v} {_BLOCK}" for v in draw(256, large // _BLOCK))
        else:
            yield from (f"TOUCH {v}" for v in draw(4096, large))
        for v in draw(256, large // _BLOCK):
            yield f"DONTNEED {_BLOCK * v} {_BLOCK}"
            yield f"FILL {_BLOCK * v} {_BLOCK}"
        if small:
            yield from (f"TOUCH {large + v}" for v in draw(256, small))
        yield f"PAGEOUT 0 {large}"
        if small:
            yield f"PAGEOUT {large} {small}"
        yield f"STATS {iteration}"


_TARGET = (
    Number("target", 131_072, 1, _MOST, "pages that are filled, pushed out and read back"),
    Number("pressure", 196_608, 1, _MOST, "pages that are written to push them out"),
)
_SIX = "of the zswap large swap-in posting"

PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern(
            "sequential",
            "passes over the region in order",
            (_PAGES, Number("passes", 10, 1, MOST_ACCESSES, "passes"), _WRITES, _SEED),
            _sequential,
        ),
        Pattern(
            "strided",
            "every step-th page, around the region",
            (
                _PAGES,
                Number("step", 17, 1, _MOST, "pages from one access to the next"),
                _COUNT,
                _WRITES,
                _SEED,
            ),
            _strided,
        ),
        Pattern("uniform", "pages drawn alike", (_PAGES, _COUNT, _WRITES, _SEED), _uniform),
        Pattern(
            "zipf",
            "pages drawn by Zipf's law, exponent 0.99",
            (
                Number("pages", 4096, 1, ZIPF_ENTRIES, "pages of the region"),
                _COUNT,
                _WRITES,
                _SEED,
                Number("together", 0, 0, 1, "1: often used pages are neighbours, 0: they are scattered"),
            ),
            _zipf,
        ),
        Pattern(
            "hotcold",
            "a hot part at the start of the region, and the rest",
            (
                _PAGES,
                Number("hot", 102, 1, 1024, "the hot part, in 1,024ths of the region"),
                Number("share", 922, 0, 1024, "how many of 1,024 accesses go to the hot part alone"),
                _COUNT,
                _WRITES,
                _SEED,
            ),
            _hotcold,
        ),
        Pattern(
            "phases",
            "one part of the region after the other, jumped about in and walked in turn",
            (
                _PAGES,
                Number("parts", 4, 1, _MOST, "parts of the region"),
                Number("phases", 8, 1, 1000, "phases"),
                Number("count", 12_000, 1, MOST_ACCESSES, "accesses of a phase"),
                _WRITES,
                _SEED,
            ),
            _phases,
        ),
        Pattern(
            "usama_1g",
            f"{_SIX}: fill, reclaim all, read all back in order",
            (Number("pages", 262_144, 1, _MOST, "pages of the region"),),
            _usama,
        ),
        Pattern("nohint_seq64", f"{_SIX}: read back in order", _TARGET, _seq64),
        Pattern(
            "seqhint_seq64",
            f"{_SIX}: read back in order; its MADV_SEQUENTIAL is not modelled, so it is nohint_seq64",
            _TARGET,
            _seq64,
        ),
        Pattern("stride64_sparse", f"{_SIX}: one page of each 64 kB, in order", _TARGET, _stride64_sparse),
        Pattern(
            "random64_sparse",
            f"{_SIX}: one page of each 64 kB, in random order",
            (*_TARGET, _SEED),
            _random64_sparse,
        ),
        Pattern(
            "random64_full",
            f"{_SIX}: all pages of each 64 kB, blocks in random order",
            (*_TARGET, _SEED),
            _random64_full,
        ),
        Pattern(
            "thp_swap_allocator_test",
            "the kernel's test of that name, with the numbers of glibc's rand()",
            (
                Number("iterations", 100, 1, 1000, "iterations"),
                Number("aligned", 0, 0, 1, "1: swap in 64 kB at a time (its -a)"),
                Number("large", 60, 1, 1024, "MiB of the area of 64 kB folios"),
                Number("small", 0, 0, 1024, "MiB of the area of small folios (its -s: 4)"),
            ),
            _allocator_test,
        ),
    )
}
