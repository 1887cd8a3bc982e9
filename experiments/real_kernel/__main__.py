"""Record workloads on real kernels under QEMU, and hold jaxswap against fresh recordings.

Exit status: 0; 1 where a replay differs from a kernel; 2 for bad input, or where something is missing.
validate prints "skipped: ..." and exits 0 where this machine lacks a program it needs.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.real_kernel import initrd
from experiments.real_kernel.errors import MissingTool, RecordingError
from experiments.real_kernel.generate import KINDS, random_case
from experiments.real_kernel.machine import (
    DEFRAG,
    Machine,
    free_whole,
    parse_limits,
    parse_mthp,
    parse_swap,
    size_in_bytes,
)
from experiments.real_kernel.record import boot_path, chosen_kernel, record, workload_bytes, write
from experiments.real_kernel.threads import record_threads
from experiments.real_kernel.validate import validate
from jaxswap.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("real_kernel: interrupted", file=sys.stderr)
        return 130
    except (RecordingError, InputError) as error:
        print(f"real_kernel: {error}", file=sys.stderr)
        return 2
    except MissingTool as error:
        if arguments.skips:
            print(f"skipped: {error}")
            return 0
        print(f"real_kernel: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.real_kernel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    one = commands.add_parser("record", help="record one workload on one kernel")
    one.add_argument("--kernel", metavar="RELEASE", help="Debian's cloud-amd64 kernel, for example 7.3.4")
    one.add_argument(
        "--kernel-dir", metavar="DIR", type=Path, help="your own kernel: a build tree or an unpacked package"
    )
    one.add_argument("--workload", metavar="FILE", type=Path, required=True, help=".t or .t.gz file")
    one.add_argument("--out", metavar="FILE", type=Path, required=True, help=".txt or .txt.gz file")
    one.add_argument(
        "--mthp",
        metavar="SIZES",
        type=_checked(parse_mthp),
        default="",
        help='sizes in kB, m for madvise: "16 64m" (default none)',
    )
    one.add_argument(
        "--swap",
        metavar="DEVICES",
        type=_checked(parse_swap),
        default="zram 128M",
        help='zram SIZE or virtio SIZE, with pri N, rotational, discard; several: "zram 8M, zram 8M"',
    )
    one.add_argument("--cpus", metavar="N", type=_checked(_number(1, 64)), default=1)
    one.add_argument("--memory", metavar="SIZE", type=_checked(_size), default="1024M")
    for option, file in (("limit", "max"), ("high", "high"), ("swap-max", "swap.max")):
        one.add_argument(
            f"--{option}",
            metavar="SIZE",
            type=_checked(_limits),
            help=f"memory.{file} of the workload's cgroup, or of those it names: web=24M,db=16M",
        )
    one.add_argument(
        "--lru", choices=("classic", "mglru"), default="mglru", help="under --limit, --high or --swap-max"
    )
    one.add_argument("--swappiness", metavar="N", type=_checked(_number(0, 200)), default=60)
    one.add_argument("--defrag", choices=DEFRAG, default="madvise", help="transparent_hugepage/defrag")
    one.add_argument("--zswap", choices=("on", "off"), default="off")
    one.add_argument("--page-cluster", metavar="N", type=_checked(_number(0, 31)), default=3)
    one.add_argument(
        "--fragment",
        metavar="SIZE",
        type=_checked(_whole),
        help="leave that much free in blocks of 64 kB (0: none), and all else in smaller pieces",
    )
    one.add_argument(
        "--boots",
        metavar="N",
        type=_checked(_number(1, 100)),
        help="record N times: OUT gets -boot1 to -bootN before .txt",
    )
    one.add_argument("--timeout", metavar="SECONDS", type=float, default=580, help="for the boot")
    one.set_defaults(run=_record, skips=False)

    several = commands.add_parser("threads", help="record two CPUs on the same ranges: errno of each check")
    several.add_argument("--kernel", metavar="RELEASE", help="Debian's cloud-amd64 kernel, for example 7.3.4")
    several.add_argument("--kernel-dir", metavar="DIR", type=Path, help="your own kernel, as for record")
    several.add_argument("--out", metavar="FILE", type=Path, required=True, help=".txt or .txt.gz file")
    several.add_argument(
        "--mthp", metavar="SIZES", type=_checked(parse_mthp), default="64", help='in kB: "16 64" (default 64)'
    )
    several.add_argument(
        "--append", metavar="WORDS", default="", help='for the kernel\'s command line: "init_on_alloc=0"'
    )
    several.add_argument("--boots", metavar="N", type=_checked(_number(1, 100)), help="as for record")
    several.add_argument("--timeout", metavar="SECONDS", type=float, default=580, help="for the boot")
    several.set_defaults(run=_threads, skips=False)

    fresh = commands.add_parser("generate", help="write the random workload of a seed, print its machine")
    fresh.add_argument("--seed", metavar="N", type=_checked(_number(0, 2**31)), required=True)
    fresh.add_argument("--kinds", metavar="KINDS", type=_checked(_kinds), default=KINDS, help=",".join(KINDS))
    fresh.add_argument("--out", metavar="FILE", type=Path, required=True, help=".t or .t.gz file")
    fresh.set_defaults(run=_generate, skips=False)

    many = commands.add_parser("validate", help="random workloads: is jaxswap's replay what the kernel does?")
    many.add_argument("--kernels", metavar="RELEASES", default="7.3.4", help="7.3.4,7.2.12 (default 7.3.4)")
    many.add_argument("--seeds", metavar="N", type=_checked(_number(1, 10**6)), default=5)
    many.add_argument(
        "--first-seed", metavar="N", type=_checked(_number(0, 2**31)), help="to repeat a run (default: drawn)"
    )
    many.add_argument(
        "--kinds",
        metavar="KINDS",
        type=_checked(_kinds),
        default="basic,flags,fork",
        help=f"of {','.join(KINDS)} (default basic,flags,fork)",
    )
    many.add_argument("--keep", metavar="DIR", type=Path, help="keep workloads and recordings there")
    many.set_defaults(run=_validate, skips=True)
    return parser


def _checked[T](parse: Callable[[str], T]) -> Callable[[str], T]:
    """A parser of argument text whose message argparse shows."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _size(text: str) -> str:
    size_in_bytes(text)
    return text


def _limits(text: str) -> str:
    return ", ".join(f"{name}={size}" if name else size for name, size in parse_limits(text).items())


def _whole(text: str) -> str:
    free_whole(text)
    return text


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(KINDS)}")
    return kinds


def _record(arguments: argparse.Namespace) -> int:
    _check_kernel_and_out(arguments)
    machine = Machine(
        arguments.mthp,
        arguments.swap,
        arguments.cpus,
        arguments.memory,
        arguments.limit or "",
        arguments.lru,
        arguments.zswap == "on",
        arguments.page_cluster,
        arguments.high or "",
        arguments.swap_max or "",
        arguments.swappiness,
        arguments.defrag,
        arguments.fragment or "",
    )
    name = arguments.workload.name.removesuffix(".gz").removesuffix(".t")
    workload = workload_bytes(arguments.workload)
    kernel = chosen_kernel(arguments.kernel, arguments.kernel_dir)
    for out in _outs(arguments):
        write(out, record(kernel, machine, name, workload, arguments.timeout))
    return 0


def _threads(arguments: argparse.Namespace) -> int:
    _check_kernel_and_out(arguments)
    kernel = chosen_kernel(arguments.kernel, arguments.kernel_dir)
    for out in _outs(arguments):
        write(out, record_threads(kernel, arguments.mthp, arguments.timeout, arguments.append))
    return 0


def _check_kernel_and_out(arguments: argparse.Namespace) -> None:
    if not (arguments.kernel or arguments.kernel_dir):
        raise RecordingError("which kernel? give --kernel RELEASE or --kernel-dir DIR")
    if not arguments.out.absolute().parent.is_dir():
        raise RecordingError(f"{arguments.out}: there is no such folder")
    initrd.check_tools()


def _outs(arguments: argparse.Namespace) -> list[Path]:
    """Where the recordings of the boots go."""
    if not arguments.boots:
        return [arguments.out]
    return [boot_path(arguments.out, number) for number in range(1, arguments.boots + 1)]


def _generate(arguments: argparse.Namespace) -> int:
    case = random_case(arguments.seed, arguments.kinds)
    write(arguments.out, case.workload)
    machine = case.machine
    swap = ", ".join(map(str, machine.swap))
    print(f'--mthp "{machine.mthp}" --swap "{swap}" --cpus {machine.cpus} --memory {machine.memory}')
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    initrd.check_tools()
    first = random.randrange(1_000_000) if arguments.first_seed is None else arguments.first_seed
    print(f"seeds from {first}; --first-seed {first} repeats them\n", flush=True)
    seeds = range(first, first + arguments.seeds)
    return validate(arguments.kernels.split(","), seeds, arguments.kinds, arguments.keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
