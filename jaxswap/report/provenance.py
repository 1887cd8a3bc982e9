"""What made a table or figure: every one of them carries these lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxswap.sweep.finished import Sweep


def provenance(sweep: Sweep) -> tuple[str, str]:
    """Versions, model, profile, LRU, seed and device; and the command."""
    about = sweep.manifest
    kernel = f"kernel profile {about['kernel']}, {about['config']['lru']} LRU"
    own = [
        f"{name} from {one['file']} {one['sha256'][:12]}"
        for name, one in about["config"]["own_policies"].items()
    ]
    model = (f"model {about['model']}", kernel, f"seed {about['seed']}", *own)
    return said(model, about["versions"], about["git"], about["device"], about["command"])


def said(
    model: Sequence[str],
    versions: Mapping[str, str],
    commit: str | None,
    device: Mapping[str, Any],
    command: str,
) -> tuple[str, str]:
    """The two lines, of the parts of jaxswap.origin; model: what is said of the model."""
    parts = [
        f"jaxswap {versions['jaxswap']}" + (f" ({_short(commit)})" if commit else ""),
        *model,
        f"{device['count']} x {device['kind']}",
        f"jax {versions['jax']}",
    ]
    return ", ".join(parts), f"command: {command}"


def _short(commits: str) -> str:
    """Commits as the manifest has them, in twelve digits each."""
    return " / ".join(f"{commit[:12]}{commit[40:]}" for commit in commits.split(" / "))
