"""Commands: record one workload on one kernel, validate jaxswap against fresh recordings."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.real_kernel import machine
from experiments.real_kernel.errors import BootFailed, MissingTool
from experiments.real_kernel.record import chosen_kernel, record, workload_bytes, write


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status: 0, 1 (a difference), 2 (bad input, something missing)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (BootFailed, MissingTool) as error:
        print(f"real_kernel: {error}", file=sys.stderr)
        return 2


def _checked(parse):  # noqa: ANN001, ANN202
    def convert(text: str):  # noqa: ANN202
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _size(text: str) -> str:
    machine.size_in_bytes(text)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.real_kernel", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    one = commands.add_parser("record", help="record one workload on one kernel")
    one.add_argument("--kernel", metavar="RELEASE", help="Debian's cloud-amd64 kernel, for example 7.3.4")
    one.add_argument("--kernel-dir", metavar="DIR", type=Path, help="a kernel of your own: build tree or folder")
    one.add_argument("--workload", metavar="FILE", type=Path, required=True, help=".t or .t.gz file")
    one.add_argument("--out", metavar="FILE", type=Path, required=True, help=".txt or .txt.gz file")
    one.add_argument("--mthp", type=_checked(machine.parse_mthp), default="", help='"16 64m" (default none)')
    one.add_argument("--swap", type=_checked(machine.parse_swap), default="zram 128M", help='"zram 8M, zram 8M pri 5"')
    one.add_argument("--cpus", type=int, default=1)
    one.add_argument("--memory", type=_checked(_size), default="1024M")
    one.add_argument("--limit", type=_checked(_size), help="memory.max, for example 32M")
    one.add_argument("--lru", choices=("classic", "mglru"), default="mglru", help="with --limit")
    one.add_argument("--zswap", choices=("on", "off"), default="off")
    one.add_argument("--page-cluster", type=int, default=3)
    one.add_argument("--timeout", metavar="SECONDS", type=float, default=580)
    one.set_defaults(run=_record)
    return parser


def _record(arguments: argparse.Namespace) -> int:
    if not (arguments.kernel or arguments.kernel_dir):
        raise BootFailed("which kernel? give --kernel RELEASE or --kernel-dir DIR")
    described = machine.Machine(
        arguments.mthp,
        arguments.swap,
        arguments.cpus,
        arguments.memory,
        arguments.limit or "",
        arguments.lru,
        arguments.zswap == "on",
        arguments.page_cluster,
    )
    name = arguments.workload.name.removesuffix(".gz").removesuffix(".t")
    workload = workload_bytes(arguments.workload)
    kernel = chosen_kernel(arguments.kernel, arguments.kernel_dir)
    write(arguments.out, record(kernel, described, name, workload, arguments.timeout))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
