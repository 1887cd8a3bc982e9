"""A search's configuration: TOML in, frozen, checked dataclasses out; errors name the file, key and fix."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxswap.config import (
    Config,
    PolicyChoice,
    WorkloadChoice,
    check_value,
    parse_mthp,
    parse_policy,
    read_machine,
    read_rule,
    read_sizes,
    read_workload_choice,
    rule_params,
    workload_table,
)
from jaxswap.errors import InputError
from jaxswap.policy import POLICIES, Param, Policy
from jaxswap.policy.describe import foresees
from jaxswap.policy.own import Own
from jaxswap.sweep.objective import parse_objective
from jaxswap.sweep.space import masks
from jaxswap.toml import Table, read_toml, show, suggest
from jaxswap.tune.fit import COSTS, FITTED
from jaxswap.tune.goal import Goal, parse_goal
from jaxswap.tune.space import NEIGHBOURS, Axis, Family

SETS = ("train", "held_out")
METHODS = ("exhaustive", "random", "sobol", "es", "fit", "neighbours")
MOST_CANDIDATES = 100_000  # of a round
_MOST_ROUNDS = 1000
_MACHINE = ("swap", "lru", "swappiness", "defrag", "frames", "buddyinfo")


@dataclass(frozen=True)
class Step:
    """A part of the search: `rounds` batches of `candidates` settings of some families.

    shares: of each workload's accesses, its first, on which a round is replayed, one after another; from one
    to the next the best of 1/halving of the candidates go on. The last is that of the whole search. labels:
    training workloads that a fit learns from; None: all that it can.
    """

    method: str
    families: tuple[Family, ...]
    candidates: int
    rounds: int
    halving: int
    shares: tuple[float, ...]
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TuneWorkload:
    """A workload. regime: under which conditions. real: recorded from a program. setting: its machine, as a
    sweep of this workload alone has it."""

    choice: WorkloadChoice
    regime: str
    real: bool
    setting: Config

    @property
    def held_out(self) -> bool:
        return self.choice.table == "held_out"


@dataclass(frozen=True)
class TuneConfig:
    """A search. reference: mask that all is compared with, under the kernel's own rule. shown: heuristics
    that are evaluated with it, beside what is found. share: of every workload's accesses, its first."""

    path: Path
    name: str
    kernel: str
    sizes: tuple[int, ...]
    reference: str
    families: tuple[Family, ...]
    shown: tuple[PolicyChoice, ...]
    goal: Goal
    steps: tuple[Step, ...]
    finalists: int
    share: float
    workloads: tuple[TuneWorkload, ...]
    seed: int
    out: Path | None
    own: tuple[Own, ...]

    @property
    def rules(self) -> tuple[Policy, ...]:
        """The heuristics that every replay's program has: all but those that know the accesses to come."""
        own = tuple(one.policy for one in self.own)
        names = {one.name for one in (*self.families, *self.shown)}
        return (*own, *(rule for name, rule in POLICIES.items() if name in names and not foresees(rule)))

    def as_dict(self) -> dict[str, Any]:
        """What decides the results, as plain values, for the manifest and the run's key."""
        return {
            "objective": "; ".join(map(str, self.goal.objectives)),
            "constraints": [str(constraint) for constraint in self.goal.constraints],
            "reference": self.reference,
            "sizes": list(self.sizes),
            "policies": [_said(family) for family in self.families],
            "own_policies": {
                own.policy.name: {"file": own.path.name, "sha256": own.sha256} for own in self.own
            },
            "shown": [str(choice) for choice in self.shown],
            "search": [_step_said(step) for step in self.steps],
            "finalists": self.finalists,
            "share": self.share,
            "kernel": self.kernel,
            "seed": self.seed,
            "workloads": {
                one.choice.name: {
                    "set": one.choice.table,
                    "regime": one.regime,
                    "real": str(one.real).lower(),
                    **one.choice.as_dict(),
                    **{key: str(value) for key, value in one.setting.machine().items() if key != "kernel"},
                }
                for one in self.workloads
            },
        }


def _step_said(step: Step) -> str:
    """All that decides what the step tries, in one line."""
    said = (
        f"{step.method} {' '.join(family.name for family in step.families)}: {step.candidates} x "
        f"{step.rounds}, halving {step.halving}, shares {' '.join(f'{one:g}' for one in step.shares)}"
    )
    return said if step.labels is None else f"{said}, labels {' '.join(step.labels)}"


def _said(family: Family) -> str:
    """All that decides the family's settings, in one line."""
    parts = [family.name, f"mthp {list(family.masks)}"]
    for name, axis in family.params:
        values = axis.values
        said = f"{values[0]} to {values[-1]}" if isinstance(values, range) else str(list(values))
        parts.append(f"{name} {said}{' log' if axis.log else ''}")
    return ", ".join(parts)


def load_tune(path: str | os.PathLike[str], overrides: Iterable[str] = (), quick: bool = False) -> TuneConfig:
    """Read a search's TOML file; `overrides` as load_config takes them. quick: with what [quick] changes.

    Raises InputError with one line that names the file, the key and the fix.
    """
    return _tune(Path(path), read_toml(path, overrides, "configs/order_heuristics.toml"), quick)


@dataclass(frozen=True)
class _Quick:
    """What [quick] changes; None: nothing."""

    candidates: int | None = None
    rounds: int | None = None
    finalists: int | None = None
    methods: list | None = None
    shown: list | None = None
    train: list | None = None
    held_out: list | None = None
    share: float = 1.0


def _tune(path: Path, top: Table, quick: bool) -> TuneConfig:
    seed = _count(top, "seed", 0, 0, 2**32 - 1)
    out = top.get("out", str, "the path of a directory")
    if out is not None and (not out or "\0" in out):
        raise top.error("out", f"{out!r} is no path; name a directory, or leave it out")
    goal = _goal(top)
    finalists = _count(top, "finalists", 8, 1, 1000)
    table = top.table("machine", "a table [machine]")
    machine = dict(table.values)
    kernel, _, _ = read_machine(path, table)
    space = top.table("space", "a table [space]")
    sizes = read_sizes(space)
    tried = _masks(space, sizes)
    space.finish()
    reference = _mask(top, "reference", top.get("reference", str, "a string of sizes in kB such as '16 64m'"))
    if reference is None:
        reference = " ".join(map(str, sizes))
    families, own = _families(path, top.table("policies", "a table [policies]"), tried)
    named = {one.policy.name: one.policy for one in own}
    shown = _shown(top, named)
    table = top.table("quick", "a table [quick]")
    changes, shown_quick = _quick(table), _shown(table, named)
    table.finish()
    asked, shown = (changes, shown if changes.shown is None else shown_quick) if quick else (_Quick(), shown)
    workloads = _workloads(path, top, machine, sizes)
    trained = tuple(one.choice.name for one in workloads if not one.held_out)
    steps = _steps(top, families, asked, trained)
    top.finish()
    for name in SETS:
        listed = getattr(changes, name)
        known = [one.choice.name for one in workloads if one.choice.table == name]
        for word in listed or ():
            if word not in known:
                raise top.error(
                    f"quick.{name}", f"no workload {show(word)} there; {suggest(str(word), known)}"
                )
    if quick:
        kept = [*(changes.train or ()), *(changes.held_out or ())]
        open_sets = [name for name in SETS if getattr(changes, name) is None]
        workloads = tuple(
            one for one in workloads if one.choice.table in open_sets or one.choice.name in kept
        )
    return TuneConfig(
        path=path,
        name=path.stem,
        kernel=kernel,
        sizes=sizes,
        reference=reference,
        families=families,
        shown=shown,
        goal=goal,
        steps=steps,
        finalists=min(finalists, asked.finalists or finalists),
        share=asked.share,
        workloads=workloads,
        seed=seed,
        out=None if out is None else Path(out),
        own=own,
    )


def _count(table: Table, key: str, default: int | None, low: int, high: int) -> Any:
    value = table.get(key, int, "a whole number", default)
    if value is not None and not low <= value <= high:
        raise table.error(key, f"{value} is out of range; take {low} to {high}")
    return value


def _share(table: Table, key: str) -> float:
    value = table.get(key, (int, float), "a share such as 0.25", 1.0)
    if not 0.001 <= value <= 1:
        raise table.error(key, f"{value} is out of range; take 0.001 to 1, of the accesses of a workload")
    return float(value)


def _words(table: Table, key: str, expected: str, default: Any = ()) -> Any:
    """A list of strings."""
    words = table.get(key, list, expected, default)
    for word in words or ():
        if not isinstance(word, str):
            raise table.error(key, f"expected {expected}, got {show(word)} in it")
    return words


def _goal(top: Table) -> Goal:
    given = top.get("objective", (str, list), 'a string, or a list of them: "dominance" or expressions')
    texts = ["dominance"] if given is None else [given] if isinstance(given, str) else given
    if not texts or not all(isinstance(text, str) for text in texts):
        raise top.error("objective", f"expected a string or a list of strings, got {show(given)}")
    constraints = _words(top, "constraints", 'a list such as ["major_faults <= ref_major_faults"]')
    try:
        for text in texts:
            parse_objective(text)
    except InputError as error:
        raise top.error("objective", str(error)) from None
    try:
        return parse_goal(texts, constraints)
    except InputError as error:
        raise top.error("constraints", str(error)) from None


def _mask(table: Table, key: str, text: Any) -> str | None:
    if text is None:
        return None
    found = parse_mthp(text) if isinstance(text, str) else None
    if found is None:
        raise table.error(key, f"{show(text)} is not a set of sizes; write kB with m for madvise: '16 64m'")
    return found


def _masks(space: Table, sizes: tuple[int, ...]) -> tuple[str, ...]:
    given = space.get("masks", list, "a list of sets of sizes such as ['16 32 64', '64']")
    if given is None:
        return tuple(masks(sizes, ["always"]))
    if not given:
        raise space.error("masks", "is empty; leave it out for every set of the sizes")
    found = [_mask(space, "masks", text) or "" for text in given]
    for mask in found:
        for word in mask.split():
            if int(word.removesuffix("m")) not in sizes:
                raise space.error("masks", f"{mask!r} has a size that sizes has not; add it there")
    return tuple(dict.fromkeys(found))


def _families(path: Path, table: Table, tried: tuple[str, ...]) -> tuple[tuple[Family, ...], tuple[Own, ...]]:
    """The kernel's rule and every heuristic of the table, with the values of its parameters."""
    found, own = {"kernel": Family("kernel", tried)}, []
    for name in table.values:
        if name in POLICIES and foresees(POLICIES[name]):
            raise table.error(
                name, "knows the accesses to come, so no kernel can have it; put it under shown"
            )
        given, mine = read_rule(path, table, name)
        own += [mine] if mine else []
        rule = mine.policy if mine else None
        params = rule_params(table.error, name, given, rule)
        axes = [
            (key, _axis(table, f"{name}.{key}", param, given.get(key, param.default)))
            for key, param in params.items()
        ]
        # without an enabled size a heuristic is the kernel's rule, which is a family of its own
        of_masks = tried if name == "kernel" else tuple(mask for mask in tried if mask)
        if of_masks:
            found[name] = Family(name, of_masks, tuple(axes), rule)
    return tuple(found.values()), tuple(own)


def _axis(table: Table, key: str, param: Param, given: Any) -> Axis:
    """A number, a list of them, or { from, to, log }."""
    if isinstance(given, dict):
        span = Table(table.file, f"{table.prefix}{key}.", given)
        ends = [span.get(end, int, "a whole number") for end in ("from", "to")]
        log = given.get("log", False)
        span.asked.append("log")
        span.finish()
        for end, value in zip(("from", "to"), ends, strict=True):
            if value is None:
                raise span.error(end, "is missing; write { from = 1, to = 16 }")
            check_value(table.error, f"{key}.{end}", param, value)
        if not isinstance(log, bool):
            raise span.error("log", f"expected true or false, got {show(log)}")
        low, high = ends
        if low > high:
            raise span.error("to", f"{high} is below from, {low}; turn them round")
        if log and low < 1:
            raise span.error("from", f"{low} has no logarithm; take 1 or more, or leave log out")
        return Axis(range(low, high + 1), log)
    values = given if isinstance(given, list) else [given]
    if not values:
        raise table.error(key, "is an empty list; give a number, a list of them or { from = 1, to = 16 }")
    for value in values:
        check_value(table.error, key, param, value)
    return Axis(tuple(dict.fromkeys(values)))


def _shown(table: Table, own: Mapping[str, Policy]) -> tuple[PolicyChoice, ...]:
    found = []
    for text in _words(table, "shown", 'a list such as ["never", "cap:order=2"]'):
        if text.partition(":")[0] in own:
            raise table.error("shown", f"{text!r} is your own; put it under [policies] and into a step")
        found.append(parse_policy(text, f"{table.file}: {table.prefix}shown"))
    return tuple(one for one in dict.fromkeys(found) if one != PolicyChoice("kernel"))


def _quick(table: Table) -> _Quick:
    found = _Quick(
        candidates=_count(table, "candidates", None, 1, MOST_CANDIDATES),
        rounds=_count(table, "rounds", None, 1, _MOST_ROUNDS),
        finalists=_count(table, "finalists", None, 1, 1000),
        methods=_words(table, "methods", f"a list of {', '.join(METHODS)}", None),
        shown=_words(table, "shown", 'a list such as ["never", "cap:order=2"]', None),
        train=_words(table, "train", "a list of workloads of [train]", None),
        held_out=_words(table, "held_out", "a list of workloads of [held_out]", None),
        share=_share(table, "share"),
    )
    for name in found.methods or ():
        if name not in METHODS:
            raise table.error("methods", f"{show(name)} is none of {', '.join(METHODS)}")
    for name in ("methods", *SETS):
        if getattr(found, name) == []:
            raise table.error(name, "is empty; leave it out for all of them")
    return found


def _steps(
    top: Table, families: tuple[Family, ...], quick: _Quick, trained: tuple[str, ...]
) -> tuple[Step, ...]:
    given = top.get("search", list, "tables [[search]]")
    if not given:
        raise top.error("search", 'is missing; add [[search]] with method = "sobol" and candidates = 32')
    steps = []
    for number, values in enumerate(given, 1):
        if not isinstance(values, dict):
            raise top.error("search", f"expected tables [[search]], got {show(values)}")
        stays = quick.methods is None or values.get("method") in quick.methods
        table = Table(top.file, f"search {number}: ", values)
        step = _step(table, families, quick if stays else _Quick(), trained)
        if stays:
            steps.append(step)
    if not steps:
        raise top.error("quick.methods", "no step of the search has one of these; add one that has")
    return tuple(steps)


def _step(table: Table, families: tuple[Family, ...], quick: _Quick, trained: tuple[str, ...]) -> Step:
    method = table.get("method", str, f"one of {', '.join(METHODS)}")
    if method not in METHODS:
        raise table.error("method", f"{show(method)} is none of {', '.join(METHODS)}")
    by_name = {family.name: family for family in families}
    names = _words(table, "policies", "a list of names of [policies]", None)
    for name in names or ():
        if name not in by_name:
            raise table.error("policies", f"{name!r} is not in [policies]; {suggest(name, by_name)}")
    if names == []:
        raise table.error("policies", "is empty; leave it out for all of them")
    if method == "fit":
        if names is not None:
            raise table.error("policies", "fit is for linear alone; leave policies out")
        if FITTED not in by_name:
            raise table.error("method", f"fit finds weights of {FITTED}; write {FITTED} = {{}} in [policies]")
        names = [FITTED]
    chosen = tuple(by_name[name] for name in dict.fromkeys(names or by_name))
    if method in ("es", "neighbours"):
        chosen = tuple(one for one in chosen if (one.free if method == "es" else one.free_params))
        if not chosen:
            raise table.error(
                "policies", f"none of them has a parameter with several values; {method} moves those"
            )
    candidates, rounds = _budget(table, method, chosen)
    labels = _labels(table, trained, quick) if method == "fit" else None
    halving, shortest = _count(table, "halving", 1, 1, 64), _share(table, "shortest")
    if (halving == 1) != (shortest == 1):
        raise table.error("halving", "and shortest go together: halving = 2 and shortest = 0.25, or neither")
    table.finish()
    shares = [1.0]
    while halving > 1 and shares[0] / halving >= shortest * (1 - 1e-9):
        shares.insert(0, shares[0] / halving)
    if quick.candidates is not None:
        most = max(quick.candidates, 2 * len(chosen)) if method == "es" else quick.candidates
        if method == "exhaustive" and candidates > most:
            method = "sobol"
        candidates = min(candidates, most)
    return Step(
        method,
        chosen,
        candidates,
        min(rounds, quick.rounds or rounds),
        halving,
        tuple(share * quick.share for share in shares),
        labels,
    )


def _budget(table: Table, method: str, chosen: tuple[Family, ...]) -> tuple[int, int]:
    """(most settings of a round, rounds) of a step."""
    if method == "exhaustive":
        size = sum(family.size for family in chosen)
        if size > MOST_CANDIDATES:
            raise table.error(
                "method", f"{size} combinations of values are too many; take sobol or fewer values"
            )
        return size, 1
    if method == "fit":
        return len(COSTS), 1
    rounds = _count(table, "rounds", 1, 1, _MOST_ROUNDS)
    if method == "neighbours":
        return NEIGHBOURS * max(len(family.params) for family in chosen), rounds
    candidates = _count(table, "candidates", None, 2, MOST_CANDIDATES)
    if candidates is None:
        raise table.error("candidates", "is missing; say how many settings a round has, for example 32")
    if method == "es" and candidates < 2 * len(chosen):
        raise table.error(
            "candidates", f"{candidates} are less than two for each of {len(chosen)} heuristics; take more"
        )
    return candidates, rounds


def _labels(table: Table, trained: tuple[str, ...], quick: _Quick) -> tuple[str, ...] | None:
    """The workloads that a fit learns from: those that stay with --quick, of the ones that the step names."""
    given = _words(table, "labels", "a list of workloads of [train]", None)
    if given is None:
        return None
    for name in given:
        if name not in trained:
            raise table.error("labels", f"no workload {name!r} in [train]; {suggest(name, trained)}")
    left = tuple(name for name in dict.fromkeys(given) if quick.train is None or name in quick.train)
    if not given:
        raise table.error("labels", "is empty; leave it out for all workloads that can be learnt from")
    if not left:
        raise table.error("labels", "has none of the workloads of quick.train; name one of those, too")
    return left


def _workloads(
    path: Path, top: Table, machine: Mapping[str, Any], sizes: tuple[int, ...]
) -> tuple[TuneWorkload, ...]:
    found: dict[str, TuneWorkload] = {}
    for kind in SETS:
        table = top.table(kind, f"a table [{kind}.NAME] for each workload")
        if not table.values:
            raise top.error(kind, f"is missing; add a table such as [{kind}.NAME] with limit and regime")
        for name in table.values:
            if name in found:
                raise table.error(name, "is in [train] too; a workload is either learnt from or held out")
            found[name] = _workload(path, workload_table(table, name), name, machine, sizes)
    return tuple(found.values())


def _workload(
    path: Path, entry: Table, name: str, machine: Mapping[str, Any], sizes: tuple[int, ...]
) -> TuneWorkload:
    choice = read_workload_choice(path, entry, name, max(sizes))
    regime = entry.get("regime", str, 'a word such as "limit"')
    if not regime:
        raise entry.error("regime", 'is missing; name the conditions of the workload, such as "fragmented"')
    entry.asked += ["real", *_MACHINE]
    real = entry.values.get("real", False)
    if not isinstance(real, bool):
        raise entry.error("real", f"expected true or false, got {show(real)}")
    entry.finish()
    its = {key: entry.values[key] for key in _MACHINE if key in entry.values}
    kernel, swap, lane = read_machine(path, Table(entry.file, entry.prefix, {**machine, **its}))
    setting = Config(
        path=path,
        name=name,
        kernel=kernel,
        swap=swap,
        workloads=(choice,),
        sizes=sizes,
        modes=("always",),
        policies=(),
        reference="",
        objective=parse_objective("dominance"),
        seed=0,
        out=None,
        lane=lane,
    )
    return TuneWorkload(choice, regime, real, setting)
