"""Settings of all tests: two CPU devices, so that lanes are sharded everywhere; no hypothesis deadline."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from tests.sweep.fake import FakeReplay, fake_lane_bytes

# LLVM takes most of the time of compiling. Without its optimisations the machine's step compiles in a third
# of the time and runs three to four times slower, which the short replays of the tests do not notice.
# test_recordings holds the machine as users compile it, too.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
jax.config.update("jax_num_cpu_devices", 2)
os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # so that main() leaves it, on one CPU too
# Compiling takes longest: what one test process has compiled the others take over. The user's cache stays as
# it is.
CACHE = os.environ.get("JAXSWAP_TEST_CACHE") or tempfile.mkdtemp(prefix="jaxswap-tests-")
os.environ["JAXSWAP_TEST_CACHE"] = CACHE
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
jax.config.update("jax_compilation_cache_dir", CACHE)

# The default draws the same examples every time; HYPOTHESIS_PROFILE=search looks for new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


MOST = 4 << 30  # bytes of a test process, before it lets its compiled programs go


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go() -> Iterator[None]:
    """After a module, if the process has grown large; what is needed again comes from the cache."""
    yield
    if int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() > MOST:
        jax.clear_caches()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The first process, which started the others, removes the cache."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(CACHE, ignore_errors=True)


CONFIG = """
[space]
sizes = [16, 32]

[policies]
never = {}
cap = { order = [2, 3] }

[workloads.one]
trace = "one.t"
limit = "50%"

[workloads.two]
trace = "two.t"
limit = "1M"
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config with two workloads beside it."""
    (tmp_path / "one.t").write_text("REGION 1024 plain\nFILL 0 1024\nREADN 0 1024\nDONTNEED 0 512\n")
    (tmp_path / "two.t").write_text("REGION 512 plain\nFILL 0 512\nREADN 0 512\n")
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeReplay:
    """The fake replay, already in place."""
    replay = FakeReplay()
    monkeypatch.setattr("jaxswap.sweep.run.replay_lanes", replay)
    monkeypatch.setattr("jaxswap.sweep.run.lane_bytes", fake_lane_bytes)
    return replay
