"""The candidates of a sweep: every mask of the chosen sizes with every heuristic, as lanes of a replay."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxswap.config import Config, PolicyChoice
from jaxswap.machine import Lane
from jaxswap.policy import POLICIES
from jaxswap.policy.describe import foresees

_SYSFS = "/sys/kernel/mm/transparent_hugepage"
SYSFS_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""The sizes, kB, that sysfs has a directory for and anonymous memory can use (8 kB is shmem's alone)."""


@dataclass(frozen=True)
class Candidate:
    """One setting: mTHP sizes as sysfs has them ("16 64m": kB, m for madvise), and a heuristic."""

    mthp: str
    policy: PolicyChoice

    @property
    def sysfs(self) -> bool:
        """Whether an unpatched kernel can be set to this."""
        return self.policy.name in POLICIES and POLICIES[self.policy.name].expressible_in_sysfs

    @property
    def foresees(self) -> bool:
        """Whether it knows the accesses to come, so that no kernel can be made to do this."""
        return self.policy.name in POLICIES and foresees(POLICIES[self.policy.name])

    def __str__(self) -> str:
        return f"{self.mthp or 'none'} / {self.policy}"

    def lane(self, common: Lane, limit: int | None, swap: int) -> Lane:
        """The lane of a replay with this setting, under a memory limit and with a swap device in bytes.

        common: what the lanes of all candidates have.
        """
        return replace(
            common,
            mthp=self.mthp,
            policy=self.policy.name,
            policy_params=dict(self.policy.params),
            rule=self.policy.rule,
            limit=limit,
            swap=swap,
        )


def masks(sizes: Sequence[int], modes: Sequence[str]) -> list[str]:
    """Every set of the sizes, smallest first: none, then each set once a mode (one mode for all sizes)."""
    found = [""]
    for count in range(1, len(sizes) + 1):
        for chosen in itertools.combinations(sorted(sizes), count):
            for mode in modes:
                found.append(" ".join(f"{size}{'m' if mode == 'madvise' else ''}" for size in chosen))
    return found


def candidates(config: Config) -> tuple[list[Candidate], int]:
    """All candidates and the index of the reference: its mask under the kernel's rule.

    Without an enabled size no heuristic has a choice: that mask stands once, with the kernel's rule.
    """
    found = [
        Candidate(mask, policy)
        for policy in config.policies
        for mask in masks(config.sizes, config.modes)
        if mask or policy.name == "kernel"
    ]
    reference = Candidate(config.reference, PolicyChoice("kernel"))
    if reference not in found:
        found.insert(0, reference)
    return found, found.index(reference)


def sysfs_lines(mthp: str) -> list[str]:
    """The shell commands that give a running kernel exactly these mTHP sizes, every other size off."""
    modes = {
        int(word.removesuffix("m")): "madvise" if word.endswith("m") else "always" for word in mthp.split()
    }
    return [f"echo {modes.get(size, 'never')} > {_SYSFS}/hugepages-{size}kB/enabled" for size in SYSFS_SIZES]
