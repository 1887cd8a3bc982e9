"""The benchmark of the replay: its workloads have the rates of faults that their rows say."""

import pytest

from jaxswap.bench.cmachine import CMachine, available
from jaxswap.bench.machine_bench import ACCESSES, PAGE, RATES, rate_cases

if not available():
    pytest.skip("no C compiler here: install gcc or clang, or set CC", allow_module_level=True)


def test_rates_of_faults() -> None:
    """Within a fifth of what the name says, of the accesses after INIT; half of them meet a limit."""
    machine, found = CMachine(), {}
    for case in rate_cases():
        (lane,) = case.lanes(1)
        limit = lane.limit // PAGE if lane.limit else None
        result = machine.run(case.workload, *lane.masks(), limit, lane.slots)
        assert not result.oom and case.workload.accesses - case.workload.npages == ACCESSES
        found[case.name] = result.counters.get("pgmajfault", 0) / ACCESSES
        assert (result.counters.get("memcg_max", 0) > 0) == (limit is not None and found[case.name] > 0)
    assert list(found) == [f"{rate:.0%} faults, {word} limit" for rate in RATES for word in ("no", "a")]
    for name, rate in found.items():
        assert rate == pytest.approx(float(name.partition("%")[0]) / 100, rel=0.2)
