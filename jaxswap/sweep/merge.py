"""Shards joined into the run that one machine would have made, byte for byte."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from jaxswap.errors import InputError
from jaxswap.sweep.finished import Sweep, read_results, read_sweep
from jaxswap.sweep.manifest import differences, joined, read_manifest, shard_of
from jaxswap.sweep.result import joined as joined_results
from jaxswap.sweep.shards import WHOLE
from jaxswap.sweep.store import open_store, seconds_of


def merge_runs(folders: Sequence[Path], out: Path) -> Sweep:
    """Join the shards in some run directories into a run in `out`, and read it.

    Raises InputError if they are not all shards of one run, each once and finished, or if `out` holds
    anything but this run.
    """
    manifests = [read_manifest(folder) for folder in folders]
    shards = [shard_of(manifest) for manifest in manifests]
    for folder, shard in zip(folders, shards, strict=True):
        if shard == WHOLE:
            raise InputError(f"{folder}: is a whole run, no shard; give directories made with --shard")
        if out.resolve() == folder.resolve():
            raise InputError(f"--out {out}: is one of the shards; choose another directory")
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        if manifest["key"] != manifests[0]["key"]:
            what = "; ".join(str(one) for one in differences(manifests[0], manifest)[:2])
            raise InputError(
                f"{folder}: is of another run than {folders[0]} ({what}); give shards of one run"
            )
    placed = sorted(
        zip(shards, folders, manifests, strict=True), key=lambda one: (one[0].count, one[0].number)
    )
    for (shard, folder, _), (other, again, _) in pairwise(placed):
        if shard.count != other.count:
            raise InputError(
                f"{again}: is shard {other}, {folder} is shard {shard}; give shards of one division"
            )
        if shard == other:
            raise InputError(f"{again}: is shard {other}, as is {folder}; give each shard once")
    count = shards[0].count
    missing = [number for number in range(1, count + 1) if number not in {shard.number for shard in shards}]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        named = ", ".join(f"{number}/{count}" for number in missing[:3])
        raise InputError(
            f"merge: shard {named}{more} is missing; run it with --shard and give its directory too"
        )
    found = [read_results(folder, manifest) for _, folder, manifest in placed]
    manifest = joined([manifest for _, _, manifest in placed], WHOLE)
    total = manifest["candidates"]
    for (shard, folder, _), results in zip(placed, found, strict=True):
        if len(results[0][1]) != len(shard.rows(total)):
            raise InputError(
                f"{folder}: holds {len(results[0][1])} candidates, not the {len(shard.rows(total))} of shard "
                f"{shard}; remove it and run the shard again"
            )
    with open_store(out, manifest) as store:
        store.begin()
        for number, name in enumerate(manifest["workloads"]):
            parts = [
                (shard.rows(total), results[number][0])
                for (shard, _, _), results in zip(placed, found, strict=True)
            ]
            at = {
                row: candidate
                for (shard, _, _), results in zip(placed, found, strict=True)
                for row, candidate in zip(shard.rows(total), results[number][1], strict=True)
            }
            took = sum(seconds_of(folder, name) for _, folder, _ in placed)
            store.write(joined_results(parts), [at[row] for row in range(total)], took)
    return read_sweep(out)
