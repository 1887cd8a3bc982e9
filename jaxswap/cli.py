"""The commands: sweep, replay, bench. Exit status 0, 1 (replay and recording differ), 2 (bad input)."""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pkgutil
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxswap import __version__
from jaxswap.errors import InputError

# The commands import what they need: JAX must be told of its CPU devices before anything uses it, and
# --help should not wait for it.


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
        status = arguments.run(arguments, ["jaxswap", *argv])
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"jaxswap: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxswap: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader has gone; keep the interpreter from complaining when it flushes at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxswap",
        description="Replay memory traces on a model of the Linux swap path and compare order heuristics.",
    )
    parser.add_argument("--version", action="version", version=f"jaxswap {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    sweep = commands.add_parser("sweep", help="rank settings and heuristics on the workloads of a config")
    sweep.add_argument(
        "config", metavar="CONFIG", help="TOML file; configs/quickstart.toml is one to start from"
    )
    sweep.add_argument(
        "--out", metavar="DIR", help="run directory (default: the config's, or one under runs/)"
    )
    sweep.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="change a key of the config, for example --set space.sizes=[16,64]; may be repeated",
    )
    sweep.set_defaults(run=_sweep)

    replay = commands.add_parser(
        "replay", help="replay one workload on one machine; compare with a real kernel"
    )
    replay.add_argument(
        "workload", metavar="WORKLOAD", help="a recorded workload's name, or a .t or .t.gz file"
    )
    replay.add_argument("--kernel", metavar="VERSION", help="kernel profile (default 7.3)")
    replay.add_argument("--mthp", metavar="SIZES", help='sizes in kB, m for madvise: "16 64m" (default none)')
    replay.add_argument("--swap", metavar="SIZE", help="size of the zram device (default 128M)")
    replay.add_argument("--limit", metavar="SIZE", help="memory.max of the cgroup (default none)")
    replay.add_argument(
        "--policy", metavar="NAME[:K=V,...]", default="kernel", help="order heuristic (default kernel)"
    )
    replay.add_argument(
        "--out", metavar="FILE", help="write the DUMP, FOLIOS and STATS blocks as a recording"
    )
    replay.add_argument(
        "--against",
        metavar="RECORDING",
        nargs="+",
        default=[],
        help="compare with recordings of a real kernel, on the machine that their header describes",
    )
    replay.add_argument(
        "--like", metavar="RECORDING", help="take kernel, mthp, swap and limit from its header"
    )
    replay.set_defaults(run=_replay)

    bench = commands.add_parser("bench", help="time the bulk kernels and the replay beside plain C")
    bench.add_argument("--json", action="store_true", help="print one JSON object a row")
    bench.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats")
    bench.set_defaults(run=_bench)
    return parser


def _prepare_jax() -> None:
    """One JAX CPU device for each core this process may use, and compiled programs kept between runs.

    What the environment says (JAX_NUM_CPU_DEVICES, JAX_COMPILATION_CACHE_DIR) stays as it is.
    """
    import jax

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        # RuntimeError: a program that calls main() has already started JAX and keeps its devices
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # apart for each kind of processor, as a home directory may be shared by several
        folder = home / "jaxswap" / _processor()
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name for what compiled code may use of this processor."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        flags = [line for line in file if line.startswith(("model name", "flags", "Features"))]
        return hashlib.sha256("".join(sorted(set(flags))).encode()).hexdigest()[:12]
    return platform.machine()


def _sweep(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.config import load_config
    from jaxswap.report.sweep import write_report
    from jaxswap.sweep.run import run_sweep

    config = load_config(arguments.config, arguments.overrides)
    if arguments.out is not None:
        config = dataclasses.replace(config, out=Path(arguments.out))
    print(write_report(run_sweep(config, command)), end="")
    return 0


def _replay(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.machine import compare, replay_one
    from jaxswap.report.replay import replay_text
    from jaxswap.workload import read_recording, read_workload, recorded, recorded_names

    if arguments.like and arguments.against:
        raise InputError("--like and --against both describe the machine; give one of them")
    if arguments.out and len(arguments.against) > 1:
        raise InputError("--out takes one recording's replay; give one --against, or run once for each")
    name = arguments.workload
    workload = read_workload(recorded(name) if name in recorded_names() else name)
    recordings = [read_recording(path) for path in arguments.against]
    described = recordings or [read_recording(arguments.like) if arguments.like else None]
    settings = [_settings(arguments, recording) for recording in described]
    status = 0
    for recording, (lane, kernel) in zip(described, settings, strict=True):
        one = replay_one(workload, lane, kernel)
        if arguments.out:
            one.write(arguments.out)
        if recording and arguments.against:
            comparison = compare(one, recording)
            print(f"{recording.path}: {comparison}", flush=True)
            status = max(status, 0 if comparison.equal else 1)
        elif not arguments.out:
            print(replay_text(one, shlex.join(command)))
    return status


def _settings(arguments: argparse.Namespace, recording: Any) -> tuple[Any, str]:
    """The lane and kernel profile of a replay: flags first, then the recording's header, then defaults."""
    from jaxswap.config import parse_mthp, parse_policy, parse_size, suggest
    from jaxswap.machine import PROFILES, Lane

    header = recording.header if recording else {}

    def chosen(flag: str, key: str, default: str) -> tuple[str, str]:
        """A setting's text and where it comes from."""
        given = getattr(arguments, flag)
        if given is not None:
            return given, f"--{flag}"
        return header.get(key, default), f"{recording.path if recording else ''}: header {key}"

    def size(text: str, where: str) -> int:
        value = parse_size(text)
        if value is None or value < 4096 or value % 4096:
            raise InputError(f"{where}: {text!r} is not a size in whole 4 KiB pages; write for example 128M")
        return value

    text, where = chosen("kernel", "kernel", "7.3")
    kernel = text if text in PROFILES else ".".join(text.split(".")[:2])
    if kernel not in PROFILES:
        raise InputError(f"{where}: no profile of kernel {text!r}; {suggest(kernel, PROFILES)}")
    text, where = chosen("mthp", "mthp", "")
    mthp = parse_mthp(text.replace("-", ""))
    if mthp is None:
        raise InputError(f'{where}: {text!r} is not a set of mTHP sizes; write kB, m for madvise: "16 64m"')
    text, where = chosen("swap", "swap", "128M")
    kind, _, rest = text.rpartition(" ")
    if kind not in ("", "zram"):
        raise InputError(f"{where}: swap on {kind} is not modelled; only zram is")
    swap = size(rest, where)
    text, where = chosen("limit", "memory.max", "max")
    limit = None if text == "max" else size(text, where)
    if limit is not None and header.get("lru", "classic") != "classic":
        raise InputError(
            f"{recording.path}: header lru: {header['lru']} with a limit is not modelled; only classic is"
        )
    policy = parse_policy(arguments.policy)
    return Lane(mthp, policy.name, dict(policy.params), limit, swap), kernel


def _bench(arguments: argparse.Namespace, command: list[str]) -> int:
    import jaxswap.bench
    from jaxswap.report.tables import rows_table

    names = [module.name for module in pkgutil.iter_modules(jaxswap.bench.__path__)]
    for name in (name for name in names if name.endswith("_bench")):
        module = importlib.import_module(f"jaxswap.bench.{name}")
        rows = module.rows(quick=arguments.quick)
        for row in rows if arguments.json else []:
            print(json.dumps(row))
        if not arguments.json:
            print(rows_table(rows), end="\n\n")
        sys.stdout.flush()
    return 0
