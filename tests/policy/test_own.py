"""Heuristics of the user's own: replayed for real, in the run's provenance, and checked when loaded."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxswap.cli import main
from jaxswap.config import load_config
from jaxswap.errors import InputError
from jaxswap.machine import Lane
from jaxswap.policy import POLICIES
from jaxswap.policy.base import leave
from jaxswap.policy.describe import splits
from jaxswap.policy.own import load_own
from jaxswap.sweep.finished import Sweep, read_sweep
from jaxswap.sweep.space import candidates
from tests.sweep.fake import FakeReplay

EXAMPLE = Path(__file__).parents[2] / "configs" / "own_policy.toml"

# cap, written anew, and lookahead with a memory that counts what it was told
TWINS = """
import jax.numpy as jnp

from jaxswap.policy import Decision, Param, Policy, highest, offer, up_to


def _lower(params, memory, seen):
    most = jnp.where(seen.first_touch, 9, params[0])
    return offer(seen.candidates & up_to(most), memory)


def _peek(params, memory, seen):
    orders = jnp.where(seen.first_touch, seen.candidates, seen.suitable)
    slots = jnp.where(seen.first_touch, 0, jnp.int32(1) << highest(seen.candidates))
    return Decision(orders, memory.at[1].add(1), jnp.zeros_like(slots), slots)


def _told(params, memory, outcome):
    return memory.at[0].add(1)


lower = Policy("lower", "cap again", _lower, params=(Param("order", 4, 2, 8, "folio order"),))
peek = Policy("peek", "lookahead again", _peek, _told)
"""

CONFIG = """
[space]
sizes = [16, 64]
[policies]
cap = { order = 3 }
lookahead = {}
lower = { file = "twins.py", order = 3 }
peek = { file = "twins.py" }
climb = { file = "CLIMB", wins = [1, 4] }
[workloads.small]
trace = "small.t"
limit = "50%"
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A real sweep of a small workload with twins of two heuristics and the example."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "twins.py").write_text(TWINS)
    pages = np.random.default_rng(0).integers(0, 1024, 1500)
    lines = ["REGION 1024 plain", "FILL 0 1024", *(f"TOUCH {page}" for page in pages), "READN 0 1024"]
    (folder / "small.t").write_text("\n".join(lines) + "\n")
    (folder / "small.toml").write_text(CONFIG.replace("CLIMB", str(EXAMPLE.parent / "climb.py")))
    assert main(["sweep", str(folder / "small.toml"), "--out", str(folder / "out")]) == 0
    return read_sweep(folder / "out")


def rows(sweep: Sweep, name: str) -> np.ndarray:
    """Counters of a heuristic's candidates."""
    chosen = [index for index, one in enumerate(sweep.candidates) if one.policy.name == name]
    assert chosen
    return sweep.results[0].counters[chosen]


@pytest.mark.parametrize(("ours", "theirs"), [("cap", "lower"), ("lookahead", "peek")])
def test_a_twin_of_a_heuristic_counts_the_same(sweep: Sweep, ours: str, theirs: str) -> None:
    assert (rows(sweep, ours) == rows(sweep, theirs)).all()
    assert sweep.results[0].counter("pswpin").all()
    assert not (rows(sweep, "kernel")[1:4] == rows(sweep, ours)).all()


def test_the_example_does_what_it_says(sweep: Sweep) -> None:
    """Its cap begins at 16 kB: it swaps in folios, and fewer of 64 kB than the kernel's rule."""
    result = sweep.results[0]
    large = {
        str(one.policy): result.counter("64kB/swpin")[index]
        for index, one in enumerate(sweep.candidates)
        if one.mthp == "16 64"
    }
    small = {
        str(one.policy): result.counter("16kB/swpin")[index]
        for index, one in enumerate(sweep.candidates)
        if one.mthp == "16 64"
    }
    assert small["climb wins=1"] > 0 and small["climb wins=4"] > 0
    assert large["climb wins=4"] <= large["climb wins=1"] < large["kernel"]


def test_the_file_is_in_the_provenance(sweep: Sweep) -> None:
    own = sweep.manifest["config"]["own_policies"]
    assert {name: one["file"] for name, one in own.items()} == {
        "lower": "twins.py",
        "peek": "twins.py",
        "climb": "climb.py",
    }
    report = (sweep.folder / "report.txt").read_text()
    assert f"lower from twins.py {own['lower']['sha256'][:12]}" in report.replace("\n", " ")
    assert "needs a kernel patch" in report or "none ran" in report


def test_the_example_is_right() -> None:
    config = load_config(EXAMPLE)
    assert [one.policy.name for one in config.own] == ["climb"]
    found, _ = candidates(config)
    chosen = [one for one in found if one.policy.name == "climb"]
    assert {str(one.policy) for one in chosen} == {"climb wins=2", "climb wins=8", "climb wins=32"}
    assert not any(one.sysfs for one in chosen)
    lane = chosen[0].lane(Lane(), None, 2 << 20)
    assert lane.heuristic is config.own[0].policy and lane.parameters() == [2]


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "sweeps.md").read_text()
    source = (EXAMPLE.parent / "climb.py").read_text().rstrip("\n")
    assert "\n".join(f"    {line}".rstrip() for line in source.split("\n")) in page


def test_annotations_do_not_clutter_the_message(tmp_path: Path) -> None:
    text = (EXAMPLE.parent / "climb.py").read_text()
    old = "def learn(params: Params, memory: Memory, outcome: Outcome)"
    assert old in text
    (tmp_path / "climb.py").write_text(text.replace(old, "def learn(memory: Memory, outcome: Outcome)"))
    said = r"climb\.py:\d+: learn takes \(memory, outcome\); write def learn\(params, memory, outcome\)$"
    with pytest.raises(InputError, match=said):
        load_own(tmp_path / "climb.py", "climb")


NOTES = """
from jaxswap.policy import Policy, offer


def _all(params, memory, seen):
    return offer(seen.candidates, memory)


def _note(params, block, outcome):
    return {}


notes = Policy("notes", "the kernel's, with a word for each block", _all, note=_note)
"""


def test_what_a_heuristic_notes_of_a_block_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "notes.py"
    file.write_text(NOTES.format("block + outcome.got"))
    assert load_own(file, "notes").policy.note is not leave
    file.write_text(NOTES.format("block + 0.5"))
    with pytest.raises(InputError, match=r"note returns float32\[1\] for 1 lane; make it int32\[1\]"):
        load_own(file, "notes")
    file.write_text(NOTES.format("block + outcome.got.sum()"))
    with pytest.raises(InputError, match="note answers otherwise for a lane alone than beside others"):
        load_own(file, "notes")


LEAVES = """
from jaxswap.policy import Policy, Verdict, offer, unread


def _all(params, memory, seen):
    return offer(seen.candidates, memory)


def _leave(params, memory, leaving):
    return {}


leaves = Policy("leaves", "the kernel's, but splits at swap-out", _all, leave_whole=_leave)
"""


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            "leaving.order < 4",
            r"leave_whole returns no Verdict; return Verdict\(whole, ptes, pages\), or unread\(",
        ),
        ("unread(leaving.order)", r"leave_whole returns whole int32\[1\] for 1 lane; make it bool\[1\]"),
        (
            "Verdict(leaving.cluster, 0, leaving.order)",
            r"returns ptes int32\[\] for 1 lane; make it int32\[1\]",
        ),
        (
            "unread(leaving.zero < 1)",
            r"leaves\.py:10: leave_whole raises AttributeError: .* no attribute 'zero'",
        ),
        ("unread(leaving.order < leaving.fill.sum())", "leave_whole answers otherwise for a lane alone"),
    ],
)
def test_what_a_heuristic_says_at_swapout_is_checked_too(tmp_path: Path, returned: str, said: str) -> None:
    file = tmp_path / "leaves.py"
    file.write_text(LEAVES.replace("{}", "unread(leaving.order < params[0])"))
    assert splits(load_own(file, "leaves").policy)
    file.write_text(LEAVES.replace("{}", returned))
    with pytest.raises(InputError, match=said):
        load_own(file, "leaves")
    file.write_text(LEAVES.replace("(params, memory, leaving):", "(params, leaving):"))
    with pytest.raises(
        InputError, match=r"leaves\.py:9: leave_whole takes \(params, leaving\); write def leave"
    ):
        load_own(file, "leaves")


PEEKS = """
import jax.numpy as jnp

from jaxswap.policy import Policy, offer


def _soon(params, memory, seen):
    return offer(jnp.where(seen.future.max(axis=0) < 99, seen.candidates, 0), memory)


peeks = Policy("peeks", "large where all of the 2 MiB is accessed soon", _soon)
"""


def test_who_looks_at_the_accesses_to_come_is_refused(tmp_path: Path) -> None:
    (tmp_path / "peeks.py").write_text(PEEKS)
    with pytest.raises(InputError, match=r"peeks\.py: peeks looks at seen\.future, which no kernel knows"):
        load_own(tmp_path / "peeks.py", "peeks")


def test_a_changed_file_is_another_run(
    config_file: Path, fake: FakeReplay, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = config_file.parent / "lower.py"
    rule.write_text(TWINS)
    arguments = ["sweep", str(config_file), "--set", "policies.lower.file=lower.py"]
    arguments += ["--out", str(config_file.parent / "out")]
    assert main(arguments) == 0 and main(arguments) == 0
    rule.write_text(TWINS + "\n# changed\n")
    capsys.readouterr()
    assert main(arguments) == 2
    assert "holds another run (another content of lower.py (policies.lower.file)" in capsys.readouterr().err


def test_policies_of_a_config(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config_file.parent / "twins.py").write_text(TWINS)
    config_file.write_text(config_file.read_text().replace("never = {}", "peek = { file = 'twins.py' }"))
    assert main(["policies", str(config_file), "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) == {*POLICIES, "peek"}
    assert found["peek"] == {
        "name": "peek",
        "doc": "lookahead again",
        "features": ["memory", "first_touch", "candidates", "suitable"],
        "learns": True,
        "ptes_read": [0, 0],
        "slots_read": [0, 512],
        "swapout": None,
        "params": [],
        "c": "",
    }
    assert found["cap"]["params"] == [
        {"name": "order", "default": 4, "low": 2, "high": 8, "doc": POLICIES["cap"].params[0].doc}
    ]
    assert (found["kernel"]["features"], found["backoff"]["learns"]) == (["candidates"], True)
    assert found["lookahead"]["slots_read"] == [0, 512]
    sparse = {"features": ["order", "young", "touched", "zeros"], "ptes_read": [0, 0], "pages_read": [0, 0]}
    assert found["split_sparse"]["swapout"] == sparse


def test_policies_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    width = max(map(len, POLICIES))
    for rule in POLICIES.values():
        assert f"{rule.name:<{width}}  {rule.doc}" in out
    assert "order = 2 .. 8, default 4" in out and "0 .. 512" in out
    assert max(map(len, out.splitlines())) <= 120


def test_two_files_of_one_content_are_two_modules(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(TWINS)
    first, second = (load_own(tmp_path / name, "lower") for name in ("a.py", "b.py"))
    assert first.sha256 == second.sha256 and first.policy is not second.policy


def test_modules_beside_it_are_not_found(tmp_path: Path) -> None:
    """Only the file itself is in the provenance, so it cannot lean on another that is not."""
    (tmp_path / "beside.py").write_text("x = 1\n")
    (tmp_path / "mine.py").write_text("import beside\n")
    with pytest.raises(InputError, match=r"mine\.py:1: loading it raises ModuleNotFoundError"):
        load_own(tmp_path / "mine.py", "mine")
