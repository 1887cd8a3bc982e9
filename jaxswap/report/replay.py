"""The text of one replay: what was run, its metrics, and every counter that is not zero."""

from jaxswap import __version__
from jaxswap.machine import OneReplay, model_version
from jaxswap.report.metadata import table_text
from jaxswap.report.tables import number, text_table
from jaxswap.swaptable.stats import table_stats
from jaxswap.sweep.metrics import METRICS


def replay_text(one: OneReplay, command: str) -> str:
    """Metrics per 1,000 accesses, raw counters, and the swap table, of a replay on one lane."""
    lane, accesses = one.lane, one.workload.accesses
    policy = " ".join([lane.policy, *(f"{key}={value}" for key, value in lane.policy_params.items())])
    settings = {key: value or "none" for key, value in lane.settings().items()}
    machine = ", ".join(f"{key} {value}" for key, value in settings.items())
    head = [
        f"jaxswap {__version__}, model {model_version(one.profile)}, kernel profile {one.profile}",
        f"command: {command}",
        f"{one.workload.name}: {accesses:,} accesses, heuristic {policy}",
        f"machine: {machine}" + ("" if lane.limited or lane.limits else ", no limit"),
    ]
    if one.oom:
        head.append("The OOM killer ended the replay; the counts stop there.")
    counts = [
        (metric.name, sum(one.counters[name] for name in metric.select(tuple(one.counters))))
        for metric in METRICS.values()
    ]
    metrics = [[name, number(1000 * count / accesses)] for name, count in counts if count and accesses]
    raw = [[name, f"{count:,}"] for name, count in one.counters.items() if count]
    slots = sum(device.slots for device in lane.devices)
    return "\n\n".join(
        [
            "\n".join(head),
            text_table(["per 1,000 accesses", ""], metrics, 1),
            text_table(["counter", ""], raw, 1),
            *([table_text(table_stats(one.clusters), one.profile, slots)] if one.clusters else []),
        ]
    )
