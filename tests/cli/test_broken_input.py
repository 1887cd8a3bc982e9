"""Every input of the commands, broken: status 2, one line on stderr that names it, and nothing written."""

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxswap.cli import main
from jaxswap.machine import model_version
from jaxswap.report import race as race_report
from jaxswap.sweep import progress, run
from jaxswap.workload import files
from jaxswap.workload import progress as recorded
from tests.conftest import CONFIG
from tests.sweep.fake import FakeReplay

RULE = """
from jaxswap.policy import Param, Policy, offer
import jax.numpy as jnp

def decide(params, memory, seen):
    return offer(seen.candidates, memory)

mine = Policy("mine", "as the kernel", decide, params=(Param("level", 1, 0, 9, "of nothing"),))
"""
OWN = "never = {}\nmine = { file = 'mine.py', level = [1, 2] }"


@dataclass
class Place:
    """A folder with a config of two workloads, a heuristic, and the runs of the config: whole, s1, s2."""

    top: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def path(self, name: str) -> str:
        return str(self.top / name)

    def write(self, name: str, data: str | bytes) -> None:
        path = self.top / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.top / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def cut(self, name: str) -> None:
        data = (self.top / name).read_bytes()
        self.write(name, data[: len(data) // 2])

    def manifest(self, name: str, **changes: object) -> None:
        path = self.top / name / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def column(self, name: str, column: str, values: object) -> None:
        path = self.top / name
        table = pq.read_table(path)
        index = table.column_names.index(column)
        changed = pa.array([values] * table.num_rows)
        pq.write_table(table.set_column(index, column, changed), path)

    def sweep(self, *more: str, out: str = "out") -> list[str]:
        return ["sweep", self.path("c.toml"), "--out", self.path(out), *more]

    def tune(self, *more: str, search: str = 'method = "exhaustive"', out: str = "out") -> list[str]:
        self.write(
            "t.toml",
            "[space]\nsizes = [16, 32]\n[policies]\ncap = { order = [2, 3] }\n"
            f"[[search]]\n{search}\n[train]\na = {{ trace = 'one.t', limit = '50%', regime = 'limit' }}\n"
            "[held_out]\nb = { trace = 'two.t', limit = '50%', regime = 'limit' }\n",
        )
        return ["tune", self.path("t.toml"), "--out", self.path(out), *more]

    def merge(self, *runs: str, out: str = "out") -> list[str]:
        return ["merge", *map(self.path, runs), "--out", self.path(out)]

    def compare(self, *runs: str) -> list[str]:
        return ["compare", *map(self.path, runs)]

    def explain(self, run: str = "whole") -> list[str]:
        return ["explain", self.path(run)]

    def landscape(self, *more: str) -> list[str]:
        self.write("l.toml", "repeats = 2\n[table]\nswap = '64M'\n[mixes]\nsmall = { 4 = 1 }\n")
        return ["landscape", self.path("l.toml"), "--out", self.path("out"), *more]

    def replay(self, *more: str) -> list[str]:
        return ["replay", self.path("one.t"), *more]

    def record(self, *program: str, out: str = "x.t", options: tuple[str, ...] = ()) -> list[str]:
        return ["record", "--out", self.path(out), *options, "--", *program]

    def imported(self, file: str, *more: str) -> list[str]:
        return ["import", self.path(file), "--out", self.path("x.t"), *more]

    def generate(self, pattern: str, out: str = "x.t") -> list[str]:
        return ["generate", pattern, "--out", self.path(out)]

    def snapshot(self, pid: str, out: str = "s.parquet") -> list[str]:
        return ["snapshot", pid, "--out", self.path(out)]

    def full_disk(self, where: str) -> None:
        """From now on the disk is full for files whose path has `where` in it."""

        def no_space(source: str, target: str) -> None:
            if where in str(target):
                raise OSError(errno.ENOSPC, "No space left on device", str(target))
            real(source, target)

        real = os.replace
        self.stack.enter_context(mock.patch.object(files.os, "replace", no_space))

    def held(self, name: str) -> None:
        """Another process writes there."""
        lock = os.open(self.top / name / ".lock", os.O_RDWR)
        self.stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every case gets a copy of."""
    place = Place(tmp_path_factory.mktemp("made"))
    place.write("one.t", "REGION 1024 plain\nFILL 0 1024\nREADN 0 1024\nDONTNEED 0 512\n")
    place.write("two.t", "REGION 512 plain\nFILL 0 512\nREADN 0 512\n")
    place.write("mine.py", RULE)
    place.write("c.toml", CONFIG.replace("never = {}", OWN))
    place.write("r.txt", "# kernel: 7.3.4\n# mthp: 16\n")
    with mock.patch.object(run, "replay_lanes", FakeReplay()):
        assert main(place.sweep(out="whole")) == 0
        for number in (1, 2):
            assert main(place.sweep("--shard", f"{number}/2", out=f"s{number}")) == 0
        assert main(place.sweep("--shard", "1/3", out="third")) == 0
        assert main(place.sweep("--set", "seed=1", out="other")) == 0
        assert main(place.sweep("--set", "seed=1", "--shard", "2/2", out="s2other")) == 0
    return place.top


@pytest.fixture
def place(made: Path, tmp_path: Path, fake: FakeReplay) -> Iterator[Place]:
    here = Place(tmp_path / "here")
    shutil.copytree(made, here.top)
    # the manifests name the config's path; the copy's is another, and no case depends on that
    with here.stack:
        yield here


Case = Callable[[Place], list[str]]


def then(*steps: object) -> list[str]:
    """The last of some steps: the arguments."""
    return steps[-1]  # pyright: ignore[reportReturnType]


def with_rule(place: Place, old: str, new: str, command: str = "sweep") -> list[str]:
    place.edit("mine.py", old, new)
    return place.sweep() if command == "sweep" else ["policies", place.path("c.toml")]


RACE = (Path(__file__).parents[2] / "configs" / "race_window.toml").read_text().replace("250_000", "200")


def race(place: Place, old: str = "", new: str = "", out: str = "sampled") -> list[str]:
    """A small sample whose config has `new` for `old`."""
    assert old in RACE
    place.write("race.toml", RACE.replace(old, new, 1))
    return ["race", "sample", place.path("race.toml"), "--out", place.path(out)]


DECIDE = "return offer(seen.candidates, memory)"

CASES: dict[str, tuple[Case, str]] = {
    # the landscape's config and directory
    "landscape seed": (lambda p: p.landscape("--set", "seed=-1"), "seed: -1 is out of range"),
    "landscape unknown key": (
        lambda p: p.landscape("--set", "life.ocupancy=1"),
        "life.ocupancy: unknown key",
    ),
    "landscape kernel": (lambda p: p.landscape("--set", "table.kernel=6.12x"), "table.kernel: "),
    "landscape swap": (lambda p: p.landscape("--set", "table.swap=63.5M"), "not a whole number of 2 MiB"),
    "landscape swap small": (
        lambda p: p.landscape("--set", "table.swap=1M"),
        "table.swap: 1M is out of range",
    ),
    "landscape block": (lambda p: p.landscape("--set", "life.block=8"), "life.block: 8 is no size here"),
    "landscape occupancy": (
        lambda p: p.landscape("--set", "life.occupancy=['100%']"),
        "life.occupancy: 100% is out of range",
    ),
    "landscape share": (
        lambda p: p.landscape("--set", "life.single=lots"),
        "life.single: 'lots' is no share",
    ),
    "landscape ages": (lambda p: p.landscape("--set", "life.ages=[-1]"), "life.ages: -1 is no age"),
    "landscape mix size": (lambda p: p.landscape("--set", "mixes.odd={5=1}"), "mixes.odd: 5 is no size here"),
    "landscape mix above block": (
        lambda p: p.landscape("--set", "mixes.big={512=1}"),
        "mixes.big.512: is larger than life.block",
    ),
    "landscape mix empty": (
        lambda p: p.landscape("--set", "mixes.no={}"),
        "mixes.no: has no size with a weight",
    ),
    "landscape history": (
        lambda p: p.landscape("--set", "policies.backoff={}"),
        "policies.backoff: goes by the faults before",
    ),
    "landscape swap-out": (
        lambda p: p.landscape("--set", "policies.split_sparse={}"),
        "policies.split_sparse: goes by `swap-out`, and a snapshot has none",
    ),
    "landscape repeats": (lambda p: p.landscape("--set", "repeats=1"), "repeats: 1 is out of range"),
    "landscape faults": (lambda p: p.landscape("--set", "faults=many"), "faults: expected a whole number"),
    "landscape missing": (lambda p: ["landscape", p.path("no.toml")], "start from is configs/landscape.toml"),
    "landscape in a run": (lambda p: p.landscape("--out", p.path("whole")), "whole: holds another run"),
    # the config of a search
    "tune missing": (lambda p: ["tune", p.path("no.toml")], "start from is configs/order_heuristics.toml"),
    "tune without a step": (lambda p: p.tune("--set", "search=[]"), "t.toml: search: is missing; add"),
    "tune with a table for a step": (lambda p: p.tune("--set", "search={}"), "search: expected tables"),
    "tune method": (lambda p: p.tune(search='method = "fits"'), "search 1: method: 'fits' is none of exhaus"),
    "tune fit without linear": (
        lambda p: p.tune(search='method = "fit"'),
        "search 1: method: fit finds weights of linear; write linear = {} in [policies]",
    ),
    "tune fit of others": (
        lambda p: p.tune(search='method = "fit"\npolicies = ["cap"]'),
        "search 1: policies: fit is for linear alone; leave policies out",
    ),
    "tune fit with candidates": (
        lambda p: p.tune("--set", "policies.linear={}", search='method = "fit"\ncandidates = 4'),
        "search 1: candidates: unknown key",
    ),
    "tune labels of an unknown workload": (
        lambda p: p.tune("--set", "policies.linear={}", search='method = "fit"\nlabels = ["b"]'),
        "search 1: labels: no workload 'b' in [train]; ",
    ),
    "tune labels of none": (
        lambda p: p.tune("--set", "policies.linear={}", search='method = "fit"\nlabels = []'),
        "search 1: labels: is empty; leave it out",
    ),
    "tune labels elsewhere": (
        lambda p: p.tune(search='method = "exhaustive"\nlabels = ["a"]'),
        "search 1: labels: unknown key",
    ),
    "tune fit of several processes": (
        lambda p: then(
            p.write("forks.t", "REGION 1024 plain\nFORK 1\nFILL 0 1024\n"),
            p.tune("--set=policies.linear={}", "--set=train.a.trace=forks.t", search='method = "fit"'),
        ),
        "t.toml: search: fit has nothing to learn from: every training workload has several processes",
    ),
    "tune fit without a size": (
        lambda p: p.tune("--set=policies.linear={}", "--set=reference=''", search='method = "fit"'),
        "t.toml: search: fit needs an order to learn of; give the reference a size",
    ),
    "tune labels of several processes": (
        lambda p: then(
            p.write("forks.t", "REGION 1024 plain\nFORK 1\nFILL 0 1024\n"),
            p.tune(
                "--set=policies.linear={}",
                "--set=train.a.trace=forks.t",
                search='method = "fit"\nlabels = ["a"]',
            ),
        ),
        "t.toml: search: fit: labels: a has several processes, CPUs or cgroups; leave it out there",
    ),
    "tune neighbours of nothing": (
        lambda p: p.tune("--set", "policies.cap={}", search='method = "neighbours"'),
        "search 1: policies: none of them has a parameter with several values; neighbours moves those",
    ),
    "tune quick methods": (
        lambda p: p.tune("--set", "quick.methods=['sobol', 'ess']"),
        "quick.methods: 'ess' is none of exhaustive,",
    ),
    "tune quick without a step": (
        lambda p: p.tune("--quick", "--set", "quick.methods=['es']"),
        "quick.methods: no step of the search has one of these",
    ),
    "tune quick shown": (
        lambda p: p.tune("--set", "quick.shown=['nevr']"),
        "quick.shown: ",
    ),
    "tune of an unknown heuristic": (
        lambda p: p.tune(search='method = "sobol"\ncandidates = 4\npolicies = ["cop"]'),
        "search 1: policies: 'cop' is not in [policies]; did you mean 'cap'?",
    ),
    "tune without candidates": (
        lambda p: p.tune(search='method = "sobol"'),
        "search 1: candidates: is missing; say how many",
    ),
    "tune es too small": (
        lambda p: p.tune(search='method = "es"\ncandidates = 2'),
        "search 1: candidates: 2 are less than two for each of 2 heuristics",
    ),
    "tune halving alone": (
        lambda p: p.tune(search='method = "random"\ncandidates = 4\nhalving = 2'),
        "search 1: halving: and shortest go together",
    ),
    "tune step with an unknown key": (
        lambda p: p.tune(search='method = "exhaustive"\nround = 2'),
        "search 1: round: unknown key",
    ),
    "tune clairvoyant": (
        lambda p: p.tune("--set", "policies.clairvoyant={}"),
        "policies.clairvoyant: knows the accesses to come",
    ),
    "tune range turned round": (
        lambda p: p.tune("--set", "policies.cap.order={from=3,to=2}"),
        "policies.cap.order.to: 2 is below from, 3; turn them round",
    ),
    "tune range out of range": (
        lambda p: p.tune("--set", "policies.cap.order={from=2,to=99}"),
        "policies.cap.order.to: 99 is out of range",
    ),
    "tune range without an end": (
        lambda p: p.tune("--set", "policies.cap.order={from=2}"),
        "policies.cap.order.to: is missing",
    ),
    "tune logarithm of 0": (
        lambda p: p.tune("--set", "policies.backoff={limit={from=0,to=9,log=true}}"),
        "policies.backoff.limit",
    ),
    "tune mask": (lambda p: p.tune("--set", "space.masks=['16 64']"), "space.masks: '16 64' has a size that"),
    "tune reference": (lambda p: p.tune("--set", "reference=big"), "reference: 'big' is not a set of sizes"),
    "tune constraint": (
        lambda p: p.tune("--set", "constraints=['failed < 2']"),
        "constraints: 'failed < 2' is not \"left <= right\"",
    ),
    "tune objective": (lambda p: p.tune("--set", "objective=['faled']"), "objective: "),
    "tune shown": (
        lambda p: p.tune("--set", "shown=['nevr']"),
        "shown: nevr: unknown heuristic; did you mean",
    ),
    "tune nothing held out": (lambda p: p.tune("--set", "held_out={}"), "held_out: is missing; add a table"),
    "tune workload twice": (
        lambda p: p.tune("--set", "held_out.a={limit='50%',regime='x'}"),
        "held_out.a: is in [train] too",
    ),
    "tune without a regime": (
        lambda p: p.tune("--set", "train.a={trace='one.t',limit='50%'}"),
        "train.a.regime: is missing",
    ),
    "tune a limit that holds all": (
        lambda p: p.tune("--set", "train.a.limit=64M"),
        "train.a.limit: 64M holds the whole footprint",
    ),
    "tune a trace that is not there": (
        lambda p: p.tune("--set", "train.a.trace=gone.t"),
        "train.a.trace: ",
    ),
    "tune quick of an unknown workload": (
        lambda p: p.tune("--set", "quick.train=['c']"),
        "quick.train: no workload 'c' there",
    ),
    "tune quick share": (lambda p: p.tune("--set", "quick.share=2"), "quick.share: 2 is out of range"),
    "tune in a sweep's directory": (lambda p: p.tune(out="whole"), "whole: holds another run ("),
    "tune among strangers": (lambda p: p.tune(out="."), "holds files that are no run ("),
    "tune into a file": (lambda p: p.tune(out="one.t"), "one.t: cannot be used as run directory"),
    "explain a search": (
        lambda p: then(p.manifest("whole", tune={"shown": 0}), p.explain()),
        "whole: holds a search, not a sweep",
    ),
    # the config as a file
    "config empty": (lambda p: then(p.write("c.toml", ""), p.sweep()), "c.toml: space.sizes: is missing"),
    "config cut off": (lambda p: then(p.write("c.toml", "[space"), p.sweep()), "c.toml: is not TOML"),
    "config binary": (lambda p: then(p.write("c.toml", b"\0\xff"), p.sweep()), "c.toml: is not TOML"),
    "config huge": (
        lambda p: then(p.write("c.toml", "#" * 2_000_000), p.sweep()),
        "c.toml: is larger than 1M",
    ),
    "config endless": (lambda p: ["sweep", "/dev/zero"], "/dev/zero: is larger than 1M"),
    "config nested": (lambda p: then(p.write("c.toml", "a=" + "[" * 5000), p.sweep()), "c.toml: is not TOML"),
    "config digits": (lambda p: then(p.write("c.toml", "seed=" + "9" * 5000), p.sweep()), "is not TOML"),
    "config a folder": (lambda p: ["sweep", p.path("whole")], "whole: is a directory"),
    "config missing": (lambda p: ["sweep", p.path("no.toml")], "no.toml: no such config file"),
    "config with a NUL": (lambda p: ["sweep", "a\0b"], "cannot be read"),
    "config on two lines": (lambda p: ["sweep", "a\nb.toml"], r"a\nb.toml: no such config file"),
    # its keys
    "seed negative": (lambda p: p.sweep("--set", "seed=-1"), "seed: -1 is out of range"),
    "seed a number of another kind": (
        lambda p: p.sweep("--set", "seed=1.5"),
        "seed: expected a whole number",
    ),
    "out with a NUL": (lambda p: ["sweep", p.path("c.toml"), "--set", 'out="a\\u0000"'], "c.toml: out: "),
    "out empty": (lambda p: ["sweep", p.path("c.toml"), "--set", 'out=""'], "c.toml: out: '' is no path"),
    "trace with a NUL": (lambda p: p.sweep("--set", 'workloads.one.trace="a\\u0000"'), "workloads.one.trace"),
    "trace of a long name": (
        lambda p: p.sweep("--set", f"workloads.one.trace={'x' * 5000}"),
        "workloads.one",
    ),
    "workload of a long name": (
        lambda p: p.sweep("--set", f"workloads.{'x' * 300}.limit=50%"),
        "a workload's name is up to 100 letters",
    ),
    "limit without end": (
        lambda p: p.sweep("--set", f"workloads.one.limit={'9' * 400}M"),
        "workloads.one.limit",
    ),
    "swap without end": (lambda p: p.sweep("--set", f"machine.swap={'9' * 400}G"), "machine.swap"),
    "too many values": (
        lambda p: p.sweep("--set", f"policies.cap.order={[2] * 3 + [44]}"),
        "policies.cap.order: 44 is out of range",
    ),
    "objective of text": (lambda p: p.sweep("--set", "objective=(((("), "objective: '((((' is neither"),
    # the workloads
    "trace cut off": (lambda p: then(p.write("one.t", "REGION 1024 plain\nFILL 0"), p.sweep()), "one.t:2: "),
    "trace empty": (lambda p: then(p.write("one.t", ""), p.sweep()), "one.t: the file is empty"),
    "trace binary": (lambda p: then(p.write("one.t", b"\0\1\xff" * 99), p.sweep()), "one.t:1: "),
    "trace a folder": (lambda p: p.sweep("--set", "workloads.one.trace=whole"), "is a directory"),
    "trace half a gzip": (lambda p: then(p.write("one.t", b"\x1f\x8b\x08\0"), p.sweep()), "one.t: "),
    # the shards
    "shard of words": (lambda p: p.sweep("--shard", "first"), "--shard first: write which shard"),
    "shard 0": (lambda p: p.sweep("--shard", "0/2"), "--shard 0/2: no such shard"),
    "shard beyond": (lambda p: p.sweep("--shard", "3/2"), "--shard 3/2: no such shard"),
    "more shards than candidates": (lambda p: p.sweep("--shard", "1/99"), "there are 19 candidates"),
    "shard in a whole run": (
        lambda p: p.sweep("--shard", "1/2", out="whole"),
        "holds the whole run of this run",
    ),
    "another shard": (
        lambda p: p.sweep("--shard", "2/2", out="s1"),
        "holds shard 1/2 of this run, not shard 2/2",
    ),
    # the run directory
    "another seed": (
        lambda p: p.sweep("--set", "seed=2", out="whole"),
        "whole: holds another run (seed is 0, not 2)",
    ),
    "other sizes": (
        lambda p: p.sweep("--set", "space.sizes=[16]", out="whole"),
        "holds another run (space.sizes is [16, 32], not [16]; reference is 16 32, not 16)",
    ),
    "another limit": (
        lambda p: p.sweep("--set", "workloads.one.limit=40%", out="whole"),
        "(workloads.one.limit is 50%, not 40%)",
    ),
    "another profile": (
        lambda p: p.sweep("--set", 'machine.kernel="6.18"', out="whole"),
        "machine.kernel is 7.3, not",
    ),
    "another trace": (
        lambda p: then(p.write("two.t", "REGION 512 plain\nFILL 0 512\n"), p.sweep(out="whole")),
        "(another content of two.t (workloads.two))",
    ),
    "another heuristic": (
        lambda p: then(p.edit("mine.py", "seen.candidates", "seen.suitable"), p.sweep(out="whole")),
        "(another content of mine.py (policies.mine.file))",
    ),
    "another model": (
        lambda p: then(
            p.stack.enter_context(
                mock.patch("jaxswap.sweep.manifest.model_version", lambda kernel: "7.3-v999")
            ),
            p.sweep(out="whole"),
        ),
        f"(model is {model_version('7.3')}, not 7.3-v999)",
    ),
    "another code": (
        lambda p: then(
            p.stack.enter_context(mock.patch("jaxswap.sweep.manifest.code_hash", lambda _: "0" * 64)),
            p.sweep(out="whole"),
        ),
        "(another content of jaxswap's code)",
    ),
    "two at once": (lambda p: then(p.held("whole"), p.sweep(out="whole")), "another run is writing here now"),
    "strangers": (lambda p: p.sweep(out="."), "holds files that are no run (c.toml)"),
    "a file for a directory": (lambda p: p.sweep(out="one.t"), "one.t: cannot be used as run directory"),
    "below a file": (lambda p: p.sweep(out="one.t/out"), "one.t/out: cannot be used as run directory"),
    "not to be written": (
        lambda p: ["sweep", p.path("c.toml"), "--out", "/proc/out"],
        "/proc/out: cannot be used",
    ),
    "a long name": (lambda p: p.sweep(out="x" * 300), "cannot be used as run directory (File name too long)"),
    "disk full at the manifest": (
        lambda p: then(p.full_disk("manifest"), p.sweep()),
        "manifest.json: the manifest cannot",
    ),
    "disk full at a result": (
        lambda p: then(p.full_disk("one.parquet"), p.sweep()),
        "No space left on device",
    ),
    "disk full at a part": (lambda p: then(p.full_disk("parts/two"), p.sweep()), "No space left on device"),
    "disk full at the report": (
        lambda p: then(p.full_disk("report"), p.sweep()),
        "report.txt: the report cannot",
    ),
    "disk full at the figure": (
        lambda p: then(p.full_disk("front.pdf"), p.sweep()),
        "front.pdf: the figure cannot",
    ),
    "disk full at the join": (
        lambda p: then(p.full_disk("two.parquet"), p.merge("s1", "s2")),
        "No space left",
    ),
    "results in the way": (
        lambda p: then(
            shutil.rmtree(p.top / "whole" / "results"), p.write("whole/results", ""), p.sweep(out="whole")
        ),
        "results: no folder for the results can be made",
    ),
    "figures in the way": (
        lambda p: then(
            shutil.rmtree(p.top / "whole" / "figures"), p.write("whole/figures", ""), p.sweep(out="whole")
        ),
        "figures: no folder for the figure can be made",
    ),
    # the files of a run
    "manifest cut off": (
        lambda p: then(p.cut("whole/manifest.json"), p.sweep(out="whole")),
        "is not a manifest",
    ),
    "manifest empty": (
        lambda p: then(p.write("whole/manifest.json", ""), p.explain()),
        "manifest.json: is not a",
    ),
    "manifest binary": (
        lambda p: then(p.write("whole/manifest.json", b"\xff\0"), p.explain()),
        "is not a manifest",
    ),
    "manifest nested": (
        lambda p: then(p.write("whole/manifest.json", "[" * 99999), p.explain()),
        "is not a manifest",
    ),
    "manifest a list": (
        lambda p: then(p.write("whole/manifest.json", "[]"), p.explain()),
        "is not a manifest",
    ),
    "manifest changed": (
        lambda p: then(p.manifest("whole", model="7.3-v1"), p.explain()),
        "it was changed, or",
    ),
    "manifest of nothing": (lambda p: then(p.manifest("whole", config={}), p.explain()), "is not a manifest"),
    "manifest a folder": (
        lambda p: then(
            (p.top / "whole/manifest.json").unlink(), (p.top / "whole/manifest.json").mkdir(), p.explain()
        ),
        "manifest.json: is not a manifest (Is a directory)",
    ),
    "result cut off": (
        lambda p: then(p.cut("whole/results/one.parquet"), p.sweep(out="whole")),
        "one.parquet: is not a",
    ),
    "result empty": (
        lambda p: then(p.write("whole/results/two.parquet", b""), p.explain()),
        "two.parquet: is not a",
    ),
    "result of text": (
        lambda p: then(p.column("whole/results/one.parquet", "pswpin", "x"), p.explain()),
        "pswpin holds",
    ),
    "result with holes": (
        lambda p: then(p.column("whole/results/one.parquet", "pswpin", None), p.explain()),
        "column pswpin holds",
    ),
    "result of other candidates": (
        lambda p: then(p.column("whole/results/one.parquet", "mthp", "16"), p.sweep(out="whole")),
        "one.parquet: holds other candidates",
    ),
    "result of no setting": (
        lambda p: then(p.column("whole/results/one.parquet", "mthp", "17"), p.explain()),
        "'17' is not a set of sizes",
    ),
    "result of another run": (
        lambda p: then(
            shutil.copy(p.path("other/results/one.parquet"), p.path("whole/results")), p.explain()
        ),
        "one.parquet: belongs to another run",
    ),
    "result a folder": (
        lambda p: then(
            (p.top / "whole/results/one.parquet").unlink(),
            (p.top / "whole/results/one.parquet").mkdir(),
            p.explain(),
        ),
        "one.parquet: is not a result file (Is a directory)",
    ),
    "unfinished": (
        lambda p: then((p.top / "whole/results/two.parquet").unlink(), p.explain()),
        "whole: is not finished (two is missing); give its command again: jaxswap sweep",
    ),
    # merge, compare, explain
    "explain nothing": (lambda p: p.explain("no"), "no: no such run directory"),
    "explain a folder": (lambda p: p.explain("."), "holds no manifest.json"),
    "explain a shard": (lambda p: p.explain("s1"), "s1: is shard 1/2 of a run; join them"),
    "compare one": (lambda p: p.compare("whole"), "compare: 1 run(s); give two"),
    "compare a shard": (lambda p: p.compare("whole", "s1"), "s1: is shard 1/2"),
    "merge without out": (lambda p: ["merge", p.path("s1")], "--out"),
    "merge one": (lambda p: p.merge("s1"), "merge: shard 2/2 is missing"),
    "merge one twice": (lambda p: p.merge("s1", "s1", "s2"), "s1: is shard 1/2, as is"),
    "merge a whole run": (lambda p: p.merge("s1", "whole"), "whole: is a whole run, no shard"),
    "merge divisions": (lambda p: p.merge("s1", "third"), "third: is shard 1/3"),
    "merge configs": (lambda p: p.merge("s1", "s2other"), "s2other: is of another run than"),
    "merge into a shard": (lambda p: p.merge("s1", "s2", out="s1"), "is one of the shards"),
    "merge into another run": (
        lambda p: p.merge("s1", "s2", out="other"),
        "other: holds another run (seed is 1",
    ),
    "merge into strangers": (lambda p: p.merge("s1", "s2", out="."), "holds files that are no run"),
    "merge an unfinished shard": (
        lambda p: then((p.top / "s2/results/two.parquet").unlink(), p.merge("s1", "s2")),
        "s2: is not finished (two is missing)",
    ),
    "merge swapped rows": (
        lambda p: then(
            shutil.copy(p.path("s1/results/one.parquet"), p.path("s2/results")), p.merge("s1", "s2")
        ),
        "holds other candidates than",
    ),
    # the user's own heuristic
    "rule missing": (lambda p: then((p.top / "mine.py").unlink(), p.sweep()), "policies.mine.file: "),
    "rule a folder": (
        lambda p: p.sweep("--set", "policies.mine.file=whole"),
        "whole: is a directory; name a Python file",
    ),
    "rule a number": (
        lambda p: p.sweep("--set", "policies.mine.file=3"),
        "policies.mine.file: expected the path",
    ),
    "rule endless": (
        lambda p: p.sweep("--set", "policies.mine.file=/dev/zero"),
        "/dev/zero: is larger than 1 MiB",
    ),
    "rule of a built-in's name": (
        lambda p: p.sweep("--set", "policies.cap.file=mine.py"),
        "cap is the name of a",
    ),
    "rule of no Python name": (
        lambda p: p.sweep("--set", "policies.my-rule.file=mine.py"),
        "take a Python name",
    ),
    "rule binary": (lambda p: then(p.write("mine.py", b"\0\xff"), p.sweep()), "mine.py"),
    "rule cut off": (lambda p: with_rule(p, DECIDE, "return offer("), "mine.py:6: is not Python"),
    "rule that raises when loaded": (
        lambda p: with_rule(p, "import jax.numpy as jnp", "1 / 0"),
        "mine.py:3: loading it",
    ),
    "rule that exits": (
        lambda p: with_rule(p, "import jax.numpy as jnp", "raise SystemExit(0)"),
        "mine.py:3: loading",
    ),
    "rule without the name": (
        lambda p: with_rule(p, "mine = Policy", "yours = Policy"),
        "mine.py: has no 'mine'",
    ),
    "rule that is no Policy": (
        lambda p: with_rule(p, "mine = Policy", "mine = 3; yours = Policy"),
        "mine is of type int, not a",
    ),
    "rule of two arguments": (
        lambda p: with_rule(p, "(params, memory, seen)", "(params, memory)"),
        "mine.py:5: decide takes (params, memory); write def decide(params, memory, seen)",
    ),
    "rule that is no function": (
        lambda p: with_rule(p, 'kernel", decide', 'kernel", 3'),
        "decide is of type int, not a function",
    ),
    "rule that raises when traced": (
        lambda p: with_rule(p, DECIDE, "return offer(seen.candidate, memory)", "policies"),
        "mine.py:6: decide raises AttributeError: 'Features' object has no attribute 'candidate' while",
    ),
    "rule with an if": (
        lambda p: with_rule(p, DECIDE, f"if seen.candidates[0]: {DECIDE}"),
        "mine.py:6: decide asks for a",
    ),
    "rule of floats": (
        lambda p: with_rule(p, DECIDE, "return offer(seen.candidates * 1.0, memory)"),
        "decide returns orders float32[1] for 1 lane; make it uint32[1]",
    ),
    "rule of one lane": (
        lambda p: with_rule(p, DECIDE, "return offer(seen.candidates[:1], memory)"),
        "decide returns orders uint32[1] for 3 lanes; make it uint32[3]",
    ),
    "rule of no decision": (
        lambda p: with_rule(p, DECIDE, "return seen.candidates"),
        "decide returns no Decision",
    ),
    "rule that forgets its memory": (
        lambda p: with_rule(p, DECIDE, "return offer(seen.candidates, memory[0])"),
        "decide returns memory int32[1] for 1 lane; make it int32[8, 1]",
    ),
    "rule over lanes": (
        lambda p: with_rule(p, DECIDE, "return offer(seen.candidates & jnp.max(seen.frames), memory)"),
        "decide answers otherwise for a lane alone",
    ),
    "rule with a wrong range": (
        lambda p: with_rule(p, '"level", 1, 0, 9', '"level", 1, 2, 9'),
        "parameter level: low 2",
    ),
    "rule of the kernel's": (
        lambda p: with_rule(p, "decide, params", "decide, expressible_in_sysfs=True, params"),
        "expressible_in_sysfs is for the kernel's own rule",
    ),
    "rule without words": (lambda p: with_rule(p, '"as the kernel"', '""'), "doc is not a line of text"),
    "rule's parameter beyond": (
        lambda p: p.sweep("--set", "policies.mine.level=10"),
        "policies.mine.level: 10 is out",
    ),
    "rule's parameter unknown": (lambda p: p.sweep("--set", "policies.mine.levl=1"), "did you mean 'level'?"),
    # policies, replay, validate
    "policies of no config": (lambda p: ["policies", p.path("no.toml")], "no.toml: no such config file"),
    "replay a number too long": (lambda p: p.replay("--swappiness", "9" * 5000), "--swappiness: '999"),
    "replay flushes for ever": (lambda p: p.replay("--flush", "99999999999"), "flush: 99999999999 faults"),
    "replay a limit too long": (lambda p: p.replay("--limit", "9" * 400), "--limit: '999"),
    "replay a policy too long": (
        lambda p: p.replay("--policy", f"cap:order={'9' * 5000}"),
        "--policy 'cap:order",
    ),
    "replay of no folder": (
        lambda p: p.replay("--out", p.path("no/x.txt")),
        "its folder cannot be written to",
    ),
    "replay an endless buddyinfo": (
        lambda p: p.replay("--buddyinfo", "/dev/zero"),
        "--buddyinfo /dev/zero: ",
    ),
    "replay a buddyinfo of a folder": (lambda p: p.replay("--buddyinfo", p.path("whole")), "Is a directory"),
    "replay against half a recording": (lambda p: p.replay("--against", p.path("r.txt")), "r.txt"),
    "replay against bytes": (
        lambda p: then(p.write("r.txt", b"\x1f\x8b\7\0"), p.replay("--against", p.path("r.txt"))),
        "r.txt: the gzip data ends in the middle",
    ),
    "validate nothing": (lambda p: ["validate", p.path("whole")], "whole"),
    # record
    "record nothing": (lambda p: ["record", "--out", p.path("x.t")], "required: PROGRAM"),
    "record without out": (lambda p: ["record", "--", "true"], "required: --out"),
    "record a missing program": (
        lambda p: p.record("nosuch"),
        "nosuch: no such program; for one in a folder",
    ),
    "record a folder": (lambda p: p.record(p.path("whole")), "whole: is no program"),
    "record a program with a NUL": (lambda p: p.record("true", "a\0b"), "hold no zero bytes"),
    "record into no folder": (lambda p: p.record("true", out="no/x.t"), "no/x.t: cannot be written there"),
    "record into a folder": (lambda p: p.record("true", out="whole"), "whole: cannot be written there"),
    "record a number of words": (
        lambda p: p.record("true", options=("--operations", "many")),
        "--operations many: write a whole number from 1",
    ),
    "record no operations": (
        lambda p: p.record("true", options=("--operations", "0")),
        "--operations 0: write a whole number from 1",
    ),
    "record without valgrind": (
        lambda p: then(p.stack.enter_context(mock.patch.dict(os.environ, PATH="/nowhere")), p.record("true")),
        "valgrind is not installed; install it",
    ),
    # import
    "import nothing": (lambda p: p.imported("no.csv"), "no.csv: no such trace file"),
    "import a folder": (lambda p: p.imported("whole"), "whole: is a directory, not a trace file"),
    "import a device": (lambda p: ["import", "/dev/zero", "--out", p.path("x.t")], "/dev/zero: is a device"),
    "import an empty file": (lambda p: then(p.write("a", ""), p.imported("a")), "a: the file is empty"),
    "import of no form": (lambda p: then(p.write("a", "hello"), p.imported("a")), "its form cannot be told"),
    "import of an unknown form": (
        lambda p: p.imported("one.t", "--form", "tape"),
        "--form tape: no such form",
    ),
    "import another form": (lambda p: p.imported("one.t", "--form", "lackey"), "one.t: no accesses found"),
    "import binary as csv": (
        lambda p: then(p.write("a", b"\0\xff" * 99), p.imported("a", "--form", "csv")),
        "a:1: ",
    ),
    "import a line without end": (
        lambda p: then(p.write("a", b"1" * 200_000), p.imported("a", "--form", "csv")),
        "a:1: a line of more than 65536 bytes",
    ),
    "import half a gzip": (
        lambda p: then(p.write("a", b"\x1f\x8b\x08\0"), p.imported("a", "--form", "csv")),
        "a: the gzip data ends in the middle",
    ),
    "import half a zst": (
        lambda p: then(p.write("a", b"\x28\xb5\x2f\xfd\0"), p.imported("a", "--form", "csv")),
        "a: cannot be read (Truncated compressed stream)",
    ),
    "import a csv with a hole": (
        lambda p: then(p.write("a", "0,1,2,1\n0,1,,1\n"), p.imported("a")),
        "a:2: '0,1,,1' is no access; write t,pid,page,write",
    ),
    "import of no process": (
        lambda p: then(p.write("a", "0,1,2,1\n"), p.imported("a", "--pid", "2")),
        "a: holds no accesses",
    ),
    "import a process of words": (lambda p: p.imported("one.t", "--pid", "me"), "--pid me: write a whole"),
    "import damaged faults": (
        lambda p: then(p.write("a", "x 1 [0] 1.0: page_fault_user: addr"), p.imported("a", "--form", "perf")),
        "a:1: damaged event",
    ),
    "import json of something else": (
        lambda p: then(p.write("a", "[3]"), p.imported("a")),
        "a: record 0: ",
    ),
    "import nested json": (
        lambda p: then(p.write("a", "[" * 99999), p.imported("a")),
        "a: is not JSON",
    ),
    "import a masim config without phases": (
        lambda p: then(p.write("a", "a, 100\n"), p.imported("a")),
        "a: has no phases",
    ),
    "import with a seed too large": (
        lambda p: p.imported("one.t", "--seed", str(2**64)),
        "--seed 18446744073",
    ),
    "import at no rate": (
        lambda p: p.imported("one.t", "--rate", "0"),
        "--rate 0: write a whole number from 1",
    ),
    "import too much": (
        lambda p: then(p.write("a", "0,1,2,1\n0,1,9,1\n"), p.imported("a", "--operations", "2")),
        "a: 3 operations, more than 2; give a higher --operations",
    ),
    "import into no room": (
        lambda p: then(p.write("a", "0,1,2,1\n"), p.full_disk("x.t"), p.imported("a")),
        "x.t: the workload cannot be written (No space left on device)",
    ),
    # generate, describe
    "generate an unknown pattern": (lambda p: p.generate("spiral"), "no pattern 'spiral'; there are: "),
    "generate with an unknown key": (lambda p: p.generate("uniform:x=1"), "uniform has no parameter 'x=1'"),
    "generate beyond": (lambda p: p.generate("uniform:pages=0"), "pages is 0; it must be 1 to"),
    "generate digits": (lambda p: p.generate(f"uniform:pages={'9' * 5000}"), "it must be 1 to 16777216"),
    "generate too much": (
        lambda p: p.generate("sequential:pages=16777216,passes=20000000"),
        "sequential:6: SEQ: 335544320000000 accesses in one operation",
    ),
    "generate without out": (lambda p: ["generate", "uniform"], "a pattern needs --out FILE"),
    "generate nothing into a file": (lambda p: ["generate", "--out", p.path("x.t")], "--out needs a pattern"),
    "generate into no folder": (lambda p: p.generate("uniform", out="no/x.t"), "no/x.t: cannot be written"),
    "describe nothing": (lambda p: ["describe", p.path("no.t")], "no.t: no such workload file"),
    "describe a cut binary": (
        lambda p: then(p.write("a.parquet", b"PAR1\0\0"), ["describe", p.path("a.parquet")]),
        "a.parquet: is not a whole Parquet file",
    ),
    "describe another parquet": (
        lambda p: ["describe", p.path("whole/results/one.parquet")],
        "one.parquet: is a Parquet file but no workload of jaxswap",
    ),
    "describe bytes": (
        lambda p: then(p.write("a.t", b"\0\1\2"), ["describe", p.path("a.t")]),
        "a.t:1: not a text file",
    ),
    "describe into no folder": (
        lambda p: ["describe", p.path("one.t"), "--figure", p.path("no/f")],
        "no/f: no folder ",
    ),
    "figure of nothing": (lambda p: ["describe", "--figure", p.path("f")], "--figure needs a workload"),
    # snapshot
    "snapshot of words": (lambda p: p.snapshot("me"), "PID me: write a whole number from 1"),
    "snapshot of nobody": (lambda p: p.snapshot("2147483647"), "2147483647: no such process"),
    "snapshot into no folder": (lambda p: p.snapshot("1", out="no/s"), "no/s: cannot be written there"),
    "snapshot without root": (
        lambda p: then(
            p.stack.enter_context(mock.patch("jaxswap.workload.snapshot._may_see_slots", lambda proc: False)),
            p.snapshot(str(os.getpid())),
        ),
        "swap slots are shown only with CAP_SYS_ADMIN; give the command as root",
    ),
    # race sample
    "race config missing": (lambda p: ["race", "sample", p.path("no.toml")], "no.toml: no such config file"),
    "race config binary": (
        lambda p: then(p.write("race.toml", b"\0\xff"), ["race", "sample", p.path("race.toml")]),
        "race.toml: is not TOML",
    ),
    "race with one CPU": (
        lambda p: race(p, "cpus = [2,", "cpus = [1,"),
        "cpus: 1 is out of range; take 2 to 64",
    ),
    "race with a form that is none": (lambda p: race(p, '"v4"', '"v9"'), "forms: 'v9' is no form; known: "),
    "race without a time": (
        lambda p: race(p, "undo = {", "# {"),
        "times.undo: is missing; write for example",
    ),
    "race that always fails": (lambda p: race(p, "0.05] #", "1.0] #"), "fails.frame: 1.0 is out of range"),
    "race into a file": (lambda p: race(p, out="one.t"), "one.t: no folder can be there"),
    "race below a file": (lambda p: race(p, out="one.t/a/b"), "b: no folder can be there"),
    "race onto a full disk": (
        lambda p: then(p.full_disk("sampled"), race(p)),
        "No space left on device",
    ),
}


PROGRESS = re.compile(
    r"(landscape|(round \d+/\d+ \w+, |held out, )?\d+/\d+) \w+(, \d+ settings)?"
    r"(: \d+%, .*/s, \d+:\d\d left|: [\d.]+ MiB a candidate, .*)?"
    r"|([\d,]+/[\d,]+ requests|start \d+/\d+, [\d,]+ states), \d+ k/s(, about \d+ s left)?"
    r"|\w+: [\d.]+ M accesses, [\d.]+ M/s, [\d,]+ operations"
)
"""A line of progress of any command."""


def errors_of(said: str) -> list[str]:
    """The lines that are no progress."""
    return [line for line in said.splitlines() if not PROGRESS.fullmatch(line)]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_status_2(place: Place, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, said = CASES[case]
    arguments = make(place)
    before = snapshot(place.top)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    lines = errors_of(err)
    assert out == ""
    assert len(lines) == 1 and lines[0].startswith("jaxswap: ") and said in lines[0]
    assert len(lines[0]) < 900 and lines[0].isprintable()
    after = snapshot(place.top)
    assert not [name for name in after if name.endswith(files.TEMPORARY)]
    if not case.startswith("disk full"):
        assert {name: data for name, data in after.items() if "/parts/" not in name} == before


@pytest.mark.parametrize(
    ("name", "position"),
    [("one", "1/2"), ("l", "landscape"), ("a, 3 settings", "round 1/12 sobol, 1/1"), ("b", "held out, 1/1")],
)
def test_progress_of_the_machine_is_no_error(
    name: str, position: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0)
    with progress.progress(name, position) as report:
        for done in (1, 2, 3):
            report(done, 10)
    said = capfd.readouterr().err
    assert said.count("\n") == 2 and not errors_of(said)


def test_progress_of_races_and_recordings_is_no_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_PLAIN_SECONDS", 0)
    with race_report.Progress(sys.stderr) as report, recorded.recording("cat") as told:
        report.every = 0
        report.requests(0, 3864)
        report.requests(2576, 3864)
        report(0, 34, 0)
        report(3, 34, 1_527_732)
        told(1_200_000, 4321)
    said = capfd.readouterr().err
    assert said.count("\n") == 5 and not errors_of(said)


@pytest.mark.parametrize(
    "line", ["jaxswap: one.t:7: 2/3 x", "1/2 one failed: no memory", "2,576/3,864 requests are lost", "1/2"]
)
def test_an_error_is_no_progress(line: str) -> None:
    assert errors_of(f"1/2 one\n{line}\n") == [line]


def test_there_are_many() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("disk full")])
def test_what_the_full_disk_stopped_goes_on(place: Place, case: str) -> None:
    arguments = CASES[case][0](place)
    assert main(arguments) == 2
    place.stack.close()
    assert main(arguments) == 0
    ours, whole = snapshot(place.top / "out"), snapshot(place.top / "whole")
    assert ours.keys() == whole.keys()
    assert all(ours[name] == whole[name] for name in ours if name.endswith(".parquet"))


def test_a_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from jaxswap.cli import entry; entry()", "policies"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            cwd=Path(__file__).parents[2],
        )
    said = "jaxswap: standard output: cannot be used (No space left on device); mend that and give "
    assert (done.returncode, done.stderr) == (2, f"{said}the command again\n")
