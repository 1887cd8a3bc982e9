"""The commands. Exit status 0, 1 (a replay differs from a kernel), 2 (bad input)."""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxswap import __version__
from jaxswap.errors import InputError, reason

_MOST_BUDDYINFO = 1 << 20  # bytes
_MOST_LINE = 800  # characters of a message

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
        return _bad(str(error))
    except KeyboardInterrupt:
        print(f"jaxswap: interrupted; {_after_interrupt(argv)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except OSError as error:
        where = error.filename
        if where is None:
            _give_up_stdout()
            where = "standard output"
        return _bad(f"{where}: cannot be used ({reason(error)}); mend that and give the command again")


def _after_interrupt(argv: Sequence[str]) -> str:
    if argv[:1] == ["record"]:
        return "nothing was written; --operations with --cut ends a long recording early"
    return "the same command goes on where this one stopped"


def _give_up_stdout() -> None:
    """Keep the interpreter from complaining when it flushes at exit what nobody will read."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bad(message: str) -> int:
    """One line on stderr that can be read, whatever the input it quotes holds; returns the exit status."""
    line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)
    if len(line) > _MOST_LINE:
        line = f"{line[: _MOST_LINE // 2]} [...] {line[-_MOST_LINE // 2 :]}"
    print(f"jaxswap: {line}", file=sys.stderr)
    return 2


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
    _overridable(sweep, "space.sizes=[16,64]")
    sweep.add_argument(
        "--shard",
        metavar="I/N",
        help="replay only the I-th of N shares of the candidates; join them by merge",
    )
    sweep.add_argument(
        "--distributed",
        action="store_true",
        help="be one of the processes that srun or mpirun has started: replay a share, the first joins all",
    )
    sweep.set_defaults(run=_sweep)

    merge = commands.add_parser("merge", help="join the shards of a sweep into one run")
    merge.add_argument("runs", metavar="RUN", nargs="+", help="run directory of a sweep with --shard")
    merge.add_argument("--out", metavar="DIR", required=True, help="run directory of the whole")
    merge.set_defaults(run=_merge)

    tune = commands.add_parser(
        "tune", help="search for heuristics on training workloads, and judge them on held-out ones"
    )
    tune.add_argument(
        "config", metavar="CONFIG", help="TOML file; configs/order_heuristics.toml is one to start from"
    )
    tune.add_argument(
        "--quick", action="store_true", help="a smaller search: what [quick] of the config says"
    )
    tune.add_argument(
        "--out", metavar="DIR", help="directory of the search (default: the config's, or one under runs/)"
    )
    _overridable(tune, "finalists=4")
    tune.set_defaults(run=_tune)

    compared = commands.add_parser(
        "compare", help="runs side by side: in what they differ, and their winners"
    )
    compared.add_argument(
        "runs", metavar="RUN", nargs="+", help="run directory; differences are to the first"
    )
    compared.set_defaults(run=_compare)

    explain = commands.add_parser(
        "explain", help="why orders were refused, the winners beside the kernel's rule"
    )
    explain.add_argument("folder", metavar="RUN", help="run directory")
    explain.set_defaults(run=_explain)

    policies = commands.add_parser("policies", help="the heuristics: what each does, looks at and reads")
    policies.add_argument(
        "config", metavar="CONFIG", nargs="?", help="also those of your own that a sweep's config names"
    )
    policies.add_argument("--json", action="store_true", help="print JSON")
    policies.set_defaults(run=_policies)

    scape = commands.add_parser(
        "landscape", help="how often swap-ins of each order are refused, and why, on aged swap tables"
    )
    scape.add_argument(
        "config", metavar="CONFIG", help="TOML file; configs/landscape.toml is one to start from"
    )
    scape.add_argument(
        "--out", metavar="DIR", help="directory of the results (default: the config's, or one under runs/)"
    )
    _overridable(scape, "table.swap=64G")
    scape.add_argument(
        "--snapshot",
        metavar="FILE",
        help="ask at faults of a real process (jaxswap snapshot) instead; prints tables",
    )
    scape.set_defaults(run=_landscape)

    metadata = commands.add_parser("metadata", help="memory that the swap tables of each kernel version take")
    metadata.add_argument("--swap", metavar="SIZE", default="1T", help="size of the device (default 1T)")
    metadata.add_argument(
        "--in-use",
        metavar="PERCENT",
        default="0",
        help="share of clusters with a slot in use, 0 to 100 (default 0)",
    )
    metadata.set_defaults(run=_metadata)

    replay = commands.add_parser(
        "replay", help="replay one workload on one machine; compare with a real kernel"
    )
    replay.add_argument(
        "workload", metavar="WORKLOAD", help="a recorded workload's name, or a workload's file"
    )
    replay.add_argument("--kernel", metavar="VERSION", help="kernel profile (default 7.3)")
    replay.add_argument("--mthp", metavar="SIZES", help='sizes in kB, m for madvise: "16 64m" (default none)')
    replay.add_argument(
        "--swap",
        metavar="DEVICE",
        help='swap device, for example "virtio 64M rotational" (default zram 128M)',
    )
    replay.add_argument(
        "--limit",
        metavar="SIZE",
        help="memory.max of the cgroup, or of those the workload names: web=24M,db=16M (default none)",
    )
    replay.add_argument("--high", metavar="SIZE", help="memory.high of the cgroup (default none)")
    replay.add_argument("--swap-max", metavar="SIZE", help="memory.swap.max of the cgroup (default none)")
    replay.add_argument("--lru", metavar="NAME", help="classic or mglru (default classic)")
    replay.add_argument("--swappiness", metavar="N", help="vm.swappiness (default 60)")
    replay.add_argument("--defrag", metavar="MODE", help="transparent_hugepage/defrag (default madvise)")
    replay.add_argument(
        "--flush",
        metavar="FAULTS",
        help="faults between two flushes of the cgroup's statistics, stats: only where STATS reads them "
        "(default 0: at every reclaim)",
    )
    replay.add_argument(
        "--switch",
        metavar="FAULTS",
        help="faults between two times that the TLB, which hides accesses from reclaim, is emptied "
        "(default 0: none is hidden)",
    )
    replay.add_argument(
        "--phase",
        metavar="FAULTS",
        help="faults since the last flush and switch when the workload begins (default 0)",
    )
    replay.add_argument(
        "--frames",
        metavar="FRAMES",
        help='page frames, for example "64M unmovable 30%% seed 1 compaction 50%%" (default: always enough)',
    )
    replay.add_argument(
        "--buddyinfo", metavar="FILE", help="page frames as free as a pasted /proc/buddyinfo says"
    )
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
        help="compare with recordings of a real kernel, on the machine that their header describes; boots "
        "NAME-bootN.txt under a limit are compared as a range",
    )
    replay.add_argument(
        "--like", metavar="RECORDING", help="take kernel, mthp, swap and limit from its header"
    )
    replay.set_defaults(run=_replay)

    _workload_commands(commands)

    held = commands.add_parser("validate", help="hold every recording of a real kernel against its replay")
    held.add_argument(
        "folders",
        metavar="DIR",
        nargs="+",
        help="folder with KERNEL/NAME.txt and workloads/NAME.t (also .gz); status 1 if one differs or, "
        "under a memory limit, is out of bounds",
    )
    held.add_argument("--figure", metavar="OUT", help="draw the pressure cells: OUT.png, OUT.pdf and OUT.csv")
    held.set_defaults(run=_validate)

    race = commands.add_parser("race", help="several CPUs on one block of swap slots")
    what = race.add_subparsers(metavar="WHAT", required=True, parser_class=_Parser)
    every = what.add_parser(
        "explore", help="every interleaving, and the shortest way to each thing that is wrong"
    )
    every.add_argument(
        "--variant",
        metavar="NAME",
        required=True,
        help="form of the path: pre-phase4, v3, v4, v4-squash or merged; with -nothp without huge pages",
    )
    every.add_argument("--cpus", type=int, default=2, metavar="N", help="faulting CPUs (default 2)")
    every.add_argument(
        "--actors",
        default="each",
        metavar="KINDS",
        help="who else: readahead, zswap, shmem, freeing, swapout, several with commas; none; "
        "each: one of every kind in turn (default)",
    )
    every.add_argument("--slots", type=int, default=4, metavar="N", help="1, 2, 4, 8 or 16 (default 4)")
    every.add_argument("--orders", metavar="ORDERS", help="such as 0..2 or 0,2 (default: all that fit)")
    every.add_argument("--json", action="store_true", help="print JSON")
    every.set_defaults(run=_race_explore)
    drawn = what.add_parser("sample", help="many CPUs under schedules drawn from a seed, and what they count")
    drawn.add_argument("config", metavar="CONFIG", help="TOML file such as configs/race_window.toml")
    drawn.add_argument(
        "--out", metavar="DIR", help="folder for the tables, as text and CSV, and the figure, as PNG and PDF"
    )
    drawn.set_defaults(run=_race_sample)

    bench = commands.add_parser("bench", help="time the bulk kernels and the replay beside plain C")
    bench.add_argument("--json", action="store_true", help="print a JSON list of rows")
    bench.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats")
    bench.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the rows (JSON, text) and a figure of growth (PDF, PNG, CSV)",
    )
    bench.set_defaults(run=_bench)
    return parser


def _overridable(command: argparse.ArgumentParser, example: str) -> None:
    """A command whose config can be changed key by key."""
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help=f"change a key of the config, for example --set {example}; may be repeated",
    )


def _workload_commands(commands: Any) -> None:
    """The commands that make and describe workloads."""
    out = {
        "metavar": "FILE",
        "required": True,
        "help": "workload to write: text, .gz for gzip, .parquet for the binary form",
    }

    record = commands.add_parser(
        "record",
        help="record a program's memory accesses as a workload, under valgrind",
        usage="jaxswap record [--name NAME] --out FILE [--operations N] [--cut] -- PROGRAM [ARGUMENT ...]",
    )
    record.add_argument("program", metavar="PROGRAM", nargs="+", help="program and its arguments, after --")
    record.add_argument("--name", metavar="NAME", help="name of the workload (default: the program's)")
    record.add_argument("--out", **out)
    _room(record)
    record.set_defaults(run=_record)

    imported = commands.add_parser("import", help="make a workload of another tool's file")
    imported.add_argument("file", metavar="FILE", help="plain, gzip or zstd")
    imported.add_argument(
        "--form", metavar="FORM", help="lackey, csv, perf, damo or masim (default: told from the content)"
    )
    imported.add_argument("--name", metavar="NAME", help="name of the workload (default: the file's)")
    imported.add_argument("--out", **out)
    _room(imported)
    imported.add_argument(
        "--pid",
        metavar="PID",
        action="append",
        default=[],
        help="csv, perf: keep only this process; may be repeated",
    )
    imported.add_argument(
        "--seed", metavar="N", default="0", help="damo, masim: seed of the draws (default 0)"
    )
    imported.add_argument(
        "--rate", metavar="N", default="4", help="masim: page accesses a millisecond of a phase (default 4)"
    )
    imported.set_defaults(run=_import)

    generate = commands.add_parser(
        "generate", help="write a synthetic workload; without a pattern, list them"
    )
    generate.add_argument(
        "pattern",
        metavar="PATTERN[:K=V,...]",
        nargs="?",
        help="for example zipf:pages=8192,count=200000,seed=3",
    )
    generate.add_argument("--out", **(out | {"required": False}))
    generate.set_defaults(run=_generate)

    describe = commands.add_parser(
        "describe", help="what a workload is like over time; without one, list the recorded ones"
    )
    describe.add_argument(
        "workload", metavar="WORKLOAD", nargs="?", help="a recorded workload's name, or a workload's file"
    )
    describe.add_argument("--figure", metavar="OUT", help="draw it too: OUT.png, OUT.pdf and OUT.csv")
    describe.set_defaults(run=_describe)

    snapshot = commands.add_parser(
        "snapshot", help="write a process's map from pages to swap slots (needs root)"
    )
    snapshot.add_argument("pid", metavar="PID", help="process")
    snapshot.add_argument("--out", metavar="FILE", required=True, help="snapshot to write, a Parquet file")
    snapshot.set_defaults(run=_snapshot)


def _room(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--operations", metavar="N", default="200000", help="most operations of the workload (default 200000)"
    )
    parser.add_argument(
        "--cut", action="store_true", help="keep the first operations where all would be too many"
    )


def _prepare_jax() -> None:
    """One JAX CPU device for each core this process may use, and compiled programs kept between runs.

    What the environment says (JAX_NUM_CPU_DEVICES, XLA_FLAGS, JAX_COMPILATION_CACHE_DIR) stays as it is.
    """
    import jax

    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in os.environ and not forced:
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
    from jaxswap.sweep.finished import Sweep
    from jaxswap.sweep.hosts import processes, run_on_hosts
    from jaxswap.sweep.run import run_shard, run_sweep
    from jaxswap.sweep.shards import parse_shard

    shard = parse_shard(arguments.shard) if arguments.shard is not None else None
    if arguments.distributed and shard is not None:
        raise InputError("--distributed: it shares the candidates out itself; leave --shard out")
    with processes() if arguments.distributed else contextlib.nullcontext() as place:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.out is not None:
            config = dataclasses.replace(config, out=Path(arguments.out))
        # without --out and --shard: the command that makes these very results
        said = ["jaxswap", "sweep", arguments.config, *(f"--set={text}" for text in arguments.overrides)]
        if place is not None:
            ran = run_on_hosts(config, said, place)
        else:
            ran = run_sweep(config, said) if shard is None else run_shard(config, said, shard)
    if isinstance(ran, Sweep):
        print(write_report(ran), end="")
    elif place is not None:
        print(f"shard {place}: {ran.folder}\nthe first process joins all of them")
    else:
        print(f"shard {shard}: {ran.folder}\njoin all of them: jaxswap merge RUN... --out DIR")
    if ran.failed:
        return _bad(
            f"{', '.join(ran.failed)} failed, the other workloads are kept in {ran.folder}; mend it and give "
            "the command again"
        )
    return 0


def _tune(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.report.search import search_of
    from jaxswap.report.tune import write_report
    from jaxswap.tune.config import load_tune
    from jaxswap.tune.rounds import run_tune

    config = load_tune(arguments.config, arguments.overrides, arguments.quick)
    if arguments.out is not None:
        config = dataclasses.replace(config, out=Path(arguments.out))
    said = ["jaxswap", "tune", arguments.config, *(f"--set={text}" for text in arguments.overrides)]
    said += ["--quick"] if arguments.quick else []
    print(write_report(search_of(run_tune(config, said))), end="")
    return 0


def _merge(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.sweep import write_report
    from jaxswap.sweep.merge import merge_runs

    print(write_report(merge_runs([Path(run) for run in arguments.runs], Path(arguments.out))), end="")
    return 0


def _compare(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.compare import compare_text
    from jaxswap.sweep.finished import read_sweep

    print(compare_text([read_sweep(Path(run)) for run in arguments.runs]))
    return 0


def _explain(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.explain import explain_text
    from jaxswap.sweep.finished import read_sweep

    print(explain_text(read_sweep(Path(arguments.folder))))
    return 0


def _policies(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.config import load_config
    from jaxswap.policy import POLICIES
    from jaxswap.policy.describe import describe
    from jaxswap.report.policies import policies_json, policies_text

    own = load_config(arguments.config).own if arguments.config is not None else ()
    described = [describe(policy) for policy in (*POLICIES.values(), *(one.policy for one in own))]
    print(json.dumps(policies_json(described), indent=2) if arguments.json else policies_text(described))
    return 0


def _landscape(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.landscape import store
    from jaxswap.landscape.config import load_landscape
    from jaxswap.landscape.run import run_landscape
    from jaxswap.report.landscape import write_landscape
    from jaxswap.sweep.progress import progress

    config = load_landscape(arguments.config, arguments.overrides)
    if arguments.snapshot is not None:
        return _landscape_of_process(config, arguments)
    if arguments.out is not None:
        config = dataclasses.replace(config, out=Path(arguments.out))
    said = ["jaxswap", "landscape", arguments.config, *(f"--set={text}" for text in arguments.overrides)]
    manifest = store.manifest_of(config, said)
    folder = store.folder_of(config, manifest)

    def fill(place: Path) -> str:
        with progress(config.name, "landscape", unit="slots written") as report:
            made = run_landscape(config, report)
        return write_landscape(made, manifest, place)

    text = store.found(folder, manifest) or store.make(folder, fill)
    print(f"{text}\nfigure: {folder / 'refusals.png'} (PDF and CSV beside it)")
    return 0


def _landscape_of_process(config: Any, arguments: argparse.Namespace) -> int:
    from jaxswap.landscape import store
    from jaxswap.landscape.process import by_device
    from jaxswap.landscape.run import ask
    from jaxswap.report.landscape import provenance
    from jaxswap.report.landscape_process import process_text
    from jaxswap.workload.snapshot import read_snapshot

    if arguments.out is not None:
        raise InputError("--out: what a snapshot gives is printed; leave --out away")
    try:
        devices = by_device(read_snapshot(arguments.snapshot))
    except InputError as error:
        text = str(error)
        raise InputError(text if arguments.snapshot in text else f"{arguments.snapshot}: {text}") from None
    said = ["jaxswap", "landscape", arguments.config, "--snapshot", arguments.snapshot]
    said += [f"--set={text}" for text in arguments.overrides]
    print("\n".join(provenance(config, store.manifest_of(config, said))))
    for device, snapshot in devices.items():
        print(f"\n{process_text(config, device, snapshot, *ask(config, snapshot, config.seed))}")
    return 0


def _metadata(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.config import parse_size
    from jaxswap.report.metadata import metadata_text

    swap = parse_size(arguments.swap)
    if swap is None or not 4096 <= swap <= 1 << 50:
        raise InputError(f"--swap {arguments.swap}: write a size from 4K to 1024T, for example 1T")
    text = arguments.in_use.removesuffix("%")
    if not re.fullmatch(r"\d{1,3}(\.\d{1,9})?", text) or float(text) > 100:
        raise InputError(f"--in-use {arguments.in_use}: write a share from 0 to 100 percent")
    print(metadata_text(swap, float(text)))
    return 0


def _replay(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.machine import compare, replay_one
    from jaxswap.pressure import Cell, cell_of, cell_path, compare_cell, grouped, limited
    from jaxswap.report.cells import cell_text
    from jaxswap.report.replay import replay_text
    from jaxswap.validate import replay_cell
    from jaxswap.workload import read_recording, read_workload

    if arguments.like and arguments.against:
        raise InputError("--like and --against both describe the machine; give one of them")
    path = _workload_path(arguments.workload)
    workload = read_workload(path)
    recordings = [read_recording(path) for path in arguments.against]
    boots = [one for one in recordings if limited(one) and cell_path(Path(one.path))]
    cells = [cell_of(stem.name, path, group) for stem, group in grouped(boots).items()]
    for cell in cells:
        if not cell.boots:
            raise InputError(
                f"{cell.killed[0].path}: every boot of {cell.name} was killed; record more boots"
            )
    single = [one for one in recordings if one not in boots]
    if arguments.out and len(single) + len(cells) > 1:
        raise InputError("--out takes one machine's replay; give the recordings of one, or run once for each")
    if arguments.out and not os.access(os.path.dirname(arguments.out) or ".", os.W_OK):
        raise InputError(f"--out {arguments.out}: its folder cannot be written to; make it first")
    like = [read_recording(arguments.like)] if arguments.like else []
    described = [*single, *(cell.boots[0] for cell in cells)] or like or [None]
    settings = [_settings(arguments, recording) for recording in described]
    timed = any(getattr(arguments, name) is not None for name in ("flush", "switch", "phase"))
    status = 0
    for (lane, kernel), held in zip(settings, [*single, *cells] or [None], strict=True):
        if isinstance(held, Cell) and not (arguments.out or timed):
            ones = replay_cell(held, workload, lane, kernel)
        else:
            ones = [replay_one(workload, lane, kernel)]
        one = ones[0]
        if arguments.out:
            one.write(arguments.out)
        if isinstance(held, Cell):
            found = compare_cell(held, ones)
            print(cell_text(found), flush=True)
            status = max(status, 0 if found.inside else 1)
        elif held:
            comparison = compare(one, held)
            print(f"{held.path}: {comparison}", flush=True)
            status = max(status, 0 if comparison.equal else 1)
        elif not arguments.out:
            print(replay_text(one, shlex.join(command)))
    return status


def _record(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.workload import summary_text
    from jaxswap.workload import write_workload
    from jaxswap.workload.progress import recording
    from jaxswap.workload.record import record

    room = _room_of(arguments)
    _check_out(arguments.out)
    with recording(arguments.name or os.path.basename(arguments.program[0])) as report:
        workload = record(arguments.program, arguments.name, room, report=report)
    write_workload(workload, arguments.out)
    print(f"{summary_text(workload)}\nwritten: {arguments.out}")
    return 0


def _import(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.workload import summary_text
    from jaxswap.workload import write_workload
    from jaxswap.workload.importing import Options, import_workload

    options = Options(
        _room_of(arguments),
        pids=frozenset(_number(pid, "--pid", 0, 2**31 - 1) for pid in arguments.pid),
        seed=_number(arguments.seed, "--seed", 0, 2**64 - 1),
        rate=_number(arguments.rate, "--rate", 1, 10**6),
    )
    _check_out(arguments.out)
    workload = import_workload(arguments.file, arguments.form, options, arguments.name)
    write_workload(workload, arguments.out)
    print(f"{summary_text(workload)}\nwritten: {arguments.out}")
    return 0


def _generate(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.workload import patterns_text, summary_text
    from jaxswap.workload import parse_workload, write_text, write_workload
    from jaxswap.workload.patterns import pattern_text

    if arguments.pattern is None:
        if arguments.out is not None:
            raise InputError("--out needs a pattern; jaxswap generate lists them")
        print(patterns_text())
        return 0
    if arguments.out is None:
        raise InputError("a pattern needs --out FILE, the workload to write")
    _check_out(arguments.out)
    text = pattern_text(arguments.pattern)
    workload = parse_workload(text, arguments.pattern.partition(":")[0])
    if arguments.out.endswith(".parquet"):
        write_workload(workload, arguments.out)
    else:
        write_text(text, arguments.out)  # with generated accesses as such, which is shorter
    print(f"{summary_text(workload)}\nwritten: {arguments.out}")
    return 0


def _describe(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.workload import recorded_text, workload_text
    from jaxswap.workload import read_workload

    if arguments.workload is None:
        if arguments.figure is not None:
            raise InputError("--figure needs a workload; jaxswap describe lists the recorded ones")
        print(recorded_text())
        return 0
    if arguments.figure is None:
        print(workload_text(read_workload(_workload_path(arguments.workload))))
        return 0
    from jaxswap.report.cells_figure import figure_stem
    from jaxswap.report.workload_figure import draw_workload

    stem = figure_stem(arguments.figure)
    workload = read_workload(_workload_path(arguments.workload))
    print(workload_text(workload))
    print(f"figure: {draw_workload(workload, stem, shlex.join(command))} (PDF and CSV beside it)")
    return 0


def _snapshot(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.report.snapshot import snapshot_text
    from jaxswap.workload.snapshot import take_snapshot, write_snapshot

    _check_out(arguments.out)
    snapshot = take_snapshot(_number(arguments.pid, "PID", 1, 2**31 - 1))
    write_snapshot(snapshot, arguments.out)
    print(f"{snapshot_text(snapshot)}\nwritten: {arguments.out}")
    return 0


def _workload_path(name: str) -> Path:
    """Path of a recorded workload's name, or of a file."""
    from jaxswap.workload import recorded, recorded_names

    return recorded(name) if name in recorded_names() else Path(name)


def _room_of(arguments: argparse.Namespace) -> Any:
    from jaxswap.workload.accesses import Room

    return Room(_number(arguments.operations, "--operations", 1, 10**9), arguments.cut)


def _number(text: str, name: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high):
        raise InputError(f"{name} {text}: write a whole number from {low} to {high}")
    return int(text)


def _check_out(path: str) -> None:
    """Raise InputError, before the work, where the file cannot be written after it."""
    folder = os.path.dirname(path) or "."
    if "\0" in path or not os.path.isdir(folder) or os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise InputError(f"--out {path}: cannot be written there; name a file in a folder that exists")


def _settings(arguments: argparse.Namespace, recording: Any) -> tuple[Any, str]:
    """The lane and kernel profile of a replay: flags first, then the recording's header, then defaults."""
    from jaxswap.described import Setting, machine_of, of_recording

    settings = of_recording(recording) if recording else {}
    same = ("kernel", "mthp", "swap", "lru", "swappiness", "defrag", "flush", "switch", "phase", "frames")
    limits = {"limit": "memory.max", "high": "memory.high", "swap_max": "memory.swap.max"}
    for flag, key in {**{name: name for name in same}, **limits}.items():
        given = getattr(arguments, flag)
        if given is not None:
            settings[key] = Setting(given, f"--{flag.replace('_', '-')}")
    if arguments.buddyinfo is not None:
        try:
            with open(arguments.buddyinfo, "rb") as file:
                text = file.read(_MOST_BUDDYINFO).decode()
        except (OSError, ValueError) as error:
            raise InputError(
                f"--buddyinfo {arguments.buddyinfo}: cannot be read ({reason(error)}); copy /proc/buddyinfo"
            ) from None
        settings["buddyinfo"] = Setting(text, f"--buddyinfo {arguments.buddyinfo}")
    return machine_of(settings, arguments.policy)


def _validate(arguments: argparse.Namespace, command: list[str]) -> int:
    _prepare_jax()
    from jaxswap.pressure import distinct
    from jaxswap.report.cells_figure import draw_cells, figure_stem
    from jaxswap.validate import cells, pairs

    figure = figure_stem(arguments.figure) if arguments.figure else None
    folders = [Path(folder) for folder in arguments.folders]
    recordings = [pair for folder in folders for pair in pairs(folder)]
    pressure = distinct(cell for folder in folders for cell in cells(folder))
    if figure and not pressure:
        raise InputError(
            f"--figure: no pressure cell below {', '.join(arguments.folders)}; it shows only those"
        )
    status = _validate_recordings(recordings) if recordings else 0
    if pressure:
        if recordings:
            print()
        found, cells_status = _validate_cells(pressure)
        status = max(status, cells_status)
        if figure:
            print(f"figure: {draw_cells(found, figure, shlex.join(command))} (PDF and CSV beside it)")
    return status


def _validate_recordings(todo: list[tuple[Path, Path]]) -> int:
    """Print a row for each (workload, recording); returns the exit status."""
    from jaxswap.validate import hold

    row = "{:<10}{:<20}{:>8}{:>9}{:>11}  {}"
    print(row.format("kernel", "workload", "maps", "folios", "counters", "first difference"))
    differ = refused = 0
    for number, (workload, recording) in enumerate(todo, 1):
        _progress(number, len(todo), recording)
        held = hold(workload, recording)
        if held.found is None:
            refused += 1
            cells = ["", "", "", f"not modelled: {held.refused}"]
        else:
            differ += not held.equal
            parts = (held.found.maps, held.found.folios, held.found.counters)
            cells = [f"{equal}/{total}" for equal, total in parts]
            cells.append(str(held.found.differences[0]) if held.found.differences else "")
        print(row.format(held.kernel, held.name, *cells).rstrip(), flush=True)
    print(f"{len(todo) - differ - refused} equal, {differ} differ, {refused} not modelled")
    return 1 if differ else 0


def _validate_cells(todo: list[Any]) -> tuple[list[Any], int]:
    """Print a row for each pressure cell; returns what was found and the exit status."""
    from jaxswap.report.cells import ROW, cell_row, cells_summary
    from jaxswap.validate import hold_cell

    print(ROW.format("kernel", "cell under a limit", "boots", "inside", "nearest to its bounds, or outside"))
    found = []
    for number, cell in enumerate(todo, 1):
        _progress(number, len(todo), cell.name)
        found.append(hold_cell(cell))
        print(cell_row(found[-1]), flush=True)
    print(cells_summary(found))
    return found, 1 if any(held.outside for held in found) else 0


def _progress(number: int, total: int, what: object) -> None:
    if sys.stderr.isatty():
        print(f"{number}/{total} {what}", end="\r", file=sys.stderr, flush=True)


def _race_explore(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap import origin
    from jaxswap.race.request import request_of
    from jaxswap.report.provenance import said
    from jaxswap.report.race import Progress, explored_parts, race_json, race_text

    asked = (arguments.variant, arguments.cpus, arguments.actors, arguments.slots, arguments.orders)
    request = request_of(*asked)
    with Progress(sys.stderr) as report:
        parts = explored_parts(request, report)
    form = (f"form {request.variant}", "every interleaving, no seed")
    made = said(form, origin.versions(), origin.commit(), _core(), shlex.join(command))
    if arguments.json:
        print(json.dumps(race_json(request, parts, made), indent=2))
    else:
        print(race_text(request, parts, made))
    return 0


def _race_sample(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap import origin
    from jaxswap.race.sample import sample
    from jaxswap.race.sample_config import load_sample
    from jaxswap.report.provenance import said
    from jaxswap.report.race import Progress
    from jaxswap.report.race_sample import sample_text, write_sample

    config = load_sample(arguments.config)
    if arguments.out is not None:
        _check_out_folder(arguments.out)
    with Progress(sys.stderr) as report:
        cells = sample(config, report.requests)
    about = (f"forms {' '.join(config.forms)}", f"seed {config.seed}", f"step times {config.source}")
    made = said(about, origin.versions(), origin.commit(), _core(), shlex.join(command))
    text = sample_text(cells, made)
    if arguments.out is not None:
        write_sample(cells, Path(arguments.out), text, made)
        text += f"\nwritten: {arguments.out}"
    print(text)
    return 0


def _core() -> dict[str, Any]:
    """The device of what NumPy computes."""
    return {"count": 1, "kind": f"{platform.machine()} core (NumPy)"}


def _check_out_folder(path: str) -> None:
    """Raise InputError, before the work, where no folder can be made and filled after it."""
    room = os.path.abspath(path) if path and "\0" not in path else ""
    while room and not os.path.lexists(room):
        room = os.path.dirname(room)
    if not os.path.isdir(room) or not os.access(room, os.W_OK):
        raise InputError(
            f"--out {path}: no folder can be there; name one, new or not, in a place to write in"
        )


def _bench(arguments: argparse.Namespace, command: list[str]) -> int:
    from jaxswap.bench import machine_bench, swaptable_bench
    from jaxswap.report.bench import bench_text, write_bench

    if arguments.out is not None:
        _check_out_folder(arguments.out)
    rows: list[dict[str, Any]] = []
    begin = time.monotonic()
    for module in (swaptable_bench, machine_bench):
        for row in module.rows(quick=arguments.quick):
            if arguments.json:  # as they come: a long bench that is cut off has left what it measured
                print(",\n" if rows else "[\n", json.dumps(row), sep="", end="", flush=True)
            rows.append(row)
            minutes, seconds = divmod(round(time.monotonic() - begin), 60)
            said = f"{row['name']}, {row['variant']}, {row['case']}"
            print(f"{minutes}:{seconds:02d} row {len(rows)}: {said}", file=sys.stderr, flush=True)
    print("\n]" if arguments.json else bench_text(rows))
    if arguments.out is not None:
        from jaxswap import origin
        from jaxswap.report.provenance import said as lines

        device = {"count": 1, "kind": rows[0]["device"]}
        made = lines((), origin.versions(), origin.commit(), device, shlex.join(command))
        write_bench(rows, Path(arguments.out), made)
    return 0
