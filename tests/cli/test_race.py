"""jaxswap race explore: what it prints, and what it says to wrong words."""

import json
from pathlib import Path

import pytest

from jaxswap.cli import main


def test_json_has_states_seconds_and_violations(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["race", "explore", "--variant", "v4-nothp", "--cpus", "1", "--slots", "2", "--json"]
    assert main(words) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["variant"] == "v4-nothp" and out["states"] > 100 and out["seconds"] > 0
    assert [one["kind"] for one in out["violations"]] == ["never returns"]
    trace = out["violations"][0]["trace"]
    assert "and then for ever:" in trace and "allocation fails" in trace[-1]
    assert sum(part["states"] for part in out["parts"]) == out["states"]
    assert [part["actors"][1] for part in out["parts"]] == [
        "readahead",
        "zswap",
        "shmem",
        "freeing",
        "swapout",
    ]
    assert "command: jaxswap race explore --variant v4-nothp" in out["origin"][1]


def test_text_has_a_line_a_set_of_actors_and_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["race", "explore", "--variant", "v4-squash", "--cpus", "1", "--slots", "2", "--actors"]
    assert main([*words, "shmem"]) == 0
    out = capsys.readouterr().out
    assert "fault + shmem" in out and "goes on with order -1, after 3 steps" in out
    assert main([*words, "freeing,zswap"]) == 0
    assert "nothing" in capsys.readouterr().out


CONFIG = (Path(__file__).parents[2] / "configs" / "race_window.toml").read_text()


def small(folder: Path) -> str:
    path = folder / "small.toml"
    path.write_text(CONFIG.replace("250_000", "200").replace("[2, 4, 8, 16, 32, 64]", "[2, 4]"))
    return str(path)


def test_sample_prints_and_writes_tables_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["race", "sample", small(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "thrown away per million faults" in printed and "seed 1, step times invented" in printed
    assert printed == (out / "sample.txt").read_text() + f"written: {out}\n"
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert "command: jaxswap race sample" in (out / "sample.csv").read_text()


def test_sample_without_a_folder_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["race", "sample", small(tmp_path)]) == 0
    assert "written" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: WHAT"),
        (["sample"], "required: CONFIG"),
        (["explore"], "required: --variant"),
        (["explore", "--variant", "v5"], "--variant v5: is none of pre-phase4"),
        (["explore", "--variant", "v4", "--cpus", "two"], "--cpus: invalid int value: 'two'"),
        (["explore", "--variant", "v4", "--cpus", "9"], "--cpus 9: with the other actors"),
        (["explore", "--variant", "v4", "--slots", "64"], "--slots 64: one aligned block"),
        (["explore", "--variant", "v4", "--orders", "0..9"], "--orders 0..9: write order 0"),
        (["explore", "--variant", "v4", "--actors", "zswap,oom"], "'oom' is none of"),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["race", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
