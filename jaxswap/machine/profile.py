"""Named kernel versions whose rules the machine follows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A kernel version.

    name: as users write it. version: of our model of it; raised whenever the same input gives other numbers.
    source: where the rules were read and the kernel they were checked against.
    """

    name: str
    version: int
    source: str


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "7.2",
            1,
            "swap table phase IV as merged; the same page maps and counters as 7.3 on one CPU with zram",
        ),
        Profile("7.3", 1, "swap table phase IV as merged; checked against Debian's 7.3.4"),
    )
}


def model_version(profile: str) -> str:
    """Name of the model of a profile, for manifests: "7.3-v1"."""
    return f"{profile}-v{PROFILES[profile].version}"
