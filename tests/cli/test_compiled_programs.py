"""Compiled programs are kept in the user's cache folder, and a second process takes them from there."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import jax
from jaxswap import cli
cli._prepare_jax()
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
jax.block_until_ready(jax.jit(lambda x: x * 2 + 1)(jax.numpy.arange(8)))
print(jax.config.jax_compilation_cache_dir)
print("hit" if "cache_hits" in events else "miss")
"""


def outcome_and_folder(**environment: str) -> tuple[str, Path]:
    kept = {key: text for key, text in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, env=kept | environment, capture_output=True, text=True, check=True)
    folder, outcome = done.stdout.split()
    return outcome, Path(folder)


def test_the_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    outcome, folder = outcome_and_folder(XDG_CACHE_HOME=str(tmp_path))
    assert (outcome, folder.parent) == ("miss", tmp_path / "jaxswap")
    assert any(folder.iterdir())
    assert outcome_and_folder(XDG_CACHE_HOME=str(tmp_path)) == ("hit", folder)


def test_a_folder_in_the_environment_is_taken(tmp_path: Path) -> None:
    given = {"XDG_CACHE_HOME": str(tmp_path / "a"), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "b")}
    assert outcome_and_folder(**given) == ("miss", tmp_path / "b")
    assert not (tmp_path / "a").exists()
