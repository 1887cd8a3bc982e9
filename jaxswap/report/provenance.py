"""What made a table or figure: every one of them carries these lines."""

from jaxswap.sweep.run import Sweep


def provenance(sweep: Sweep) -> tuple[str, str]:
    """Versions, model, profile, seed and device; and the command."""
    manifest = sweep.manifest
    device, commit, versions = manifest["device"], manifest["git"], manifest["versions"]
    parts = [
        f"jaxswap {versions['jaxswap']}" + (f" ({commit[:12]}{commit[40:]})" if commit else ""),
        f"model {manifest['model']}",
        f"kernel profile {manifest['kernel']}",
        f"seed {manifest['seed']}",
        f"{device['count']} x {device['kind']}",
        f"jax {versions['jax']}",
    ]
    return ", ".join(parts), f"command: {manifest['command']}"
