"""Record one of the held-out programs that are here alone.

    python -m experiments.order_heuristics.record NAME [--out FILE]

They are recorded as those of experiments/recorded_programs are, and were chosen by the kind of program before
anything was replayed on them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.recorded_programs.__main__ import record_program
from experiments.recorded_programs.recipes import Program
from jaxswap.workload import write_workload
from jaxswap.workload.generate import splitmix64


def perl_input(folder: Path) -> None:
    """A Perl program that groups 5,000 records by a skewed key in a hash of arrays, sorts each group, and
    looks records up through a second hash."""
    (folder / "group.pl").write_text(
        """\
my (%group, %place, $x);
$x = 11;
for my $i (0 .. 4999) {
    $x = ($x * 16807) % 2147483647;
    my $key = int(($x % 300) * ($x % 7919) / 7919);
    push @{$group{$key}}, [$i, "value$x" x 12];
    $place{$x} = $i;
}
for my $key (sort { $a <=> $b } keys %group) {
    $group{$key} = [sort { $b->[1] cmp $a->[1] } @{$group{$key}}];
}
my $sum = 0;
for my $i (0 .. 5999) {
    $x = ($x * 16807) % 2147483647;
    my $all = $group{$x % 120} or next;
    my $one = $all->[$x % @$all];
    $sum += length($one->[1]) + ($place{$x} // 0);
}
print "$sum\\n";
"""
    )


def mawk_input(folder: Path) -> None:
    """6,000 lines of a client, one of 1,500, a path, one of 5,000, and a size; an AWK program that sums
    them up by path and by client."""
    draws = splitmix64(11, 0, 6_000).tolist()
    lines = [f"10.{d % 1500} /static/{d >> 12 & 0xFFF}/{d % 5003:08d} {d >> 30 & 0xFFFF}\n" for d in draws]
    (folder / "access.log").write_text("".join(lines))
    (folder / "sums.awk").write_text(
        """\
{ bytes[$2] += $3; hits[$1, substr($2, 9, 2)]++; last[$1] = $0 }
END {
    for (path in bytes) if (bytes[path] > most) { most = bytes[path]; best = path }
    for (client in last) { split(last[client], f, " "); total += bytes[f[2]] }
    print best, most, total
}
"""
    )


def bzip2_input(folder: Path) -> None:
    """150 kB of words drawn from 4,000."""
    (folder / "words.txt").write_text(_words(12, 150_000))


def _words(seed: int, size: int) -> str:
    """Text of `size` characters: words of 3 to 9 letters, low ones of 4,000 most often, 12 a line."""
    draws = splitmix64(seed, 0, size // 4).tolist()
    words = [f"{w:x}"[: 3 + w % 7] for w in splitmix64(14, 0, 4_000).tolist()]
    drawn = [words[(d & 0xFFF) * (d >> 12 & 0xFFF) * 4_000 >> 24] for d in draws]
    lines = [" ".join(drawn[at : at + 12]) for at in range(0, len(drawn), 12)]
    return "\n".join(lines)[:size]


PROGRAMS = {
    "perl": Program(
        "Perl grouping records by a skewed key in a hash of arrays, sorting the groups, looking records up",
        ("perl", "group.pl"),
        perl_input,
    ),
    "mawk": Program(
        "mawk summing a log up by path and by client: hash tables of strings that double and split",
        ("mawk", "-f", "sums.awk", "access.log"),
        mawk_input,
    ),
    "bzip2": Program(
        "bzip2 of 150 kB of words: a block sorted by its rotations, then coded",
        ("bzip2", "--keep", "--stdout", "words.txt"),
        bzip2_input,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.order_heuristics.record", description=__doc__
    )
    parser.add_argument("name", choices=PROGRAMS)
    parser.add_argument("--out", metavar="FILE", help="file to write; default NAME.t.gz")
    given = parser.parse_args(arguments)
    write_workload(record_program(PROGRAMS[given.name], given.name), given.out or f"{given.name}.t.gz")


if __name__ == "__main__":
    main()
