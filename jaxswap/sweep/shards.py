"""Shards: which of a sweep's candidates one of several machines replays."""

import re
from dataclasses import dataclass

from jaxswap.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 1) of `count`: every count-th candidate, so that shares cost about the same."""

    number: int
    count: int

    def rows(self, candidates: int) -> range:
        """The candidates of this share."""
        return range(self.number - 1, candidates, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard(1, 1)
"""All candidates: a run that is not sharded."""


def parse_shard(text: str, where: str = "--shard") -> Shard:
    """ "2/3" is the second of three. Raises InputError for anything else."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None:
        raise InputError(f"{where} {text}: write which shard of how many, for example --shard 1/4")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        raise InputError(
            f"{where} {text}: no such shard; the shards of {count} are 1/{count} to {count}/{count}"
        )
    return Shard(number, count)
