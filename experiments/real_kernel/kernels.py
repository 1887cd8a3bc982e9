"""Kernels to boot: Debian's cloud-amd64 packages, fetched with apt and unpacked, or a build of one's own.

Nothing is installed. Packages, package lists and unpacked trees go under the cache folder.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from experiments.real_kernel.errors import MissingTool, RecordingError

SUITES = ("trixie-backports", "sid", "bookworm-backports")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
IMAGES = ("vmlinuz", "bzImage", "arch/x86/boot/bzImage", "boot/vmlinuz-*", "lib/modules/*/vmlinuz")


@dataclass(frozen=True)
class Kernel:
    """A bootable kernel: its release (as in 7.3.4), its image, and the folder its modules are under."""

    release: str
    image: Path
    modules: Path


def cache_folder() -> Path:
    """Where downloads are kept: jaxswap/kernels under $XDG_CACHE_HOME or ~/.cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "jaxswap" / "kernels"


def image_release(image: Path) -> str:
    """The release that a bzImage states in its header, without the distributor's suffix.

    Raises RecordingError if the file is not a bzImage."""
    data = image.read_bytes()
    if data[0x202:0x206] != b"HdrS":
        raise RecordingError(f"{image}: not a Linux x86 boot image")
    (pointer,) = struct.unpack_from("<H", data, 0x20E)
    text = data[0x200 + pointer :].split(b"\0", 1)[0].decode("ascii", "replace")
    return re.split(r"[^0-9.]", text, maxsplit=1)[0].rstrip(".")


def own_kernel(folder: Path) -> Kernel:
    """The kernel in a folder: a build tree, an unpacked package, or vmlinuz beside its modules.

    Raises RecordingError if there is no image in it."""
    for pattern in IMAGES:
        for image in sorted(folder.glob(pattern)):
            return Kernel(image_release(image), image, folder)
    raise RecordingError(f"{folder}: no kernel image here (looked for {', '.join(IMAGES)})")


def debian_kernel(release: str) -> Kernel:
    """Debian's cloud-amd64 kernel of this release; downloaded once.

    Raises MissingTool where there is no apt, RecordingError if Debian does not offer the release."""
    if not re.fullmatch(r"\d+(\.\d+)+", release):
        raise RecordingError(f"{release!r} is not a kernel release; write for example 7.3.4")
    folder = cache_folder() / release
    root = folder / "root"
    cache_folder().mkdir(parents=True, exist_ok=True)
    # a second run that wants the same kernel waits for the first to have unpacked it
    with open(cache_folder() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "unpacked").exists():
            _download(release, folder / "packages", root)
            (folder / "unpacked").touch()
    found = own_kernel(root) if list(root.glob("boot/vmlinuz-*")) else own_kernel(root / "usr")
    return Kernel(release, found.image, root)


def _download(release: str, packages: Path, root: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg") and KEYRING.exists()):
        raise MissingTool(
            "fetching a Debian kernel needs apt-get, dpkg and debian-archive-keyring; "
            "elsewhere name a kernel of your own with --kernel-dir"
        )
    options = _apt_options(cache_folder() / "apt")
    names = _package_names(release, options)
    packages.mkdir(parents=True, exist_ok=True)
    _apt(["apt-get", *options, "download", *names], cwd=packages)
    if any("binary" in name for name in names) and not any("modules" in name for name in names):
        _download_modules(next(name for name in names if "binary" in name), packages)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)


def _download_modules(binary: str, packages: Path) -> None:
    """The modules that belong to a binary package, from the mirror's pool.

    Superseded releases stay in the index as their signed packages only; the pool still holds the rest."""
    (file,) = packages.glob(f"{binary}_*.deb")
    name = file.name.replace("linux-binary-", "linux-modules-").replace("%3a", ":")
    url = f"{_mirror()}/pool/main/l/linux/{name}"
    _apt(["/usr/lib/apt/apt-helper", "download-file", url, str(packages / name)])


def _apt_options(folder: Path) -> list[str]:
    """Options that make apt use lists of its own with the suites that hold kernels."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    lines = [f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n" for suite in SUITES]
    sources.write_text("".join(lines))
    options = ["-q", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"]
    options += ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
    # the unprivileged user of apt cannot write into a home directory
    return [*options, "-o", "APT::Sandbox::User=root"]


def _mirror() -> str:
    """The Debian mirror that this machine already uses."""
    for path in (*sorted(Path("/etc/apt/sources.list.d").glob("*")), Path("/etc/apt/sources.list")):
        text = path.read_text(errors="replace") if path.is_file() else ""
        match = re.search(
            r"^(?:URIs:|deb(?: \[.*?\])?)\s+(https?://\S*/debian/?)(?:\s|$)", text, re.MULTILINE
        )
        if match:
            return match[1]
    return "http://deb.debian.org/debian"


def _package_names(release: str, options: list[str]) -> list[str]:
    """The packages that together hold image and modules.

    The newest packaging is binary, modules and base; before that binary and image, and first one image."""
    pattern = re.compile(
        rf"linux-(binary|modules|base|image)-{re.escape(release)}\+deb\d+(\.\d+)?-cloud-amd64(-unsigned)?"
    )

    def offered() -> list[str]:
        text = _apt(["apt-cache", *options, "pkgnames", "linux-"])
        return [name for name in text.split() if pattern.fullmatch(name)]

    names = offered()
    if not names:
        _apt(["apt-get", *options, "update"])
        names = offered()
    if any(name.startswith("linux-modules-") for name in names):
        names = [name for name in names if not name.startswith("linux-image-")]
    unsigned = [name for name in names if name.endswith("-unsigned")]
    if not names:
        raise RecordingError(
            f"Debian has no cloud-amd64 kernel {release} (looked in {', '.join(SUITES)}); "
            "for a kernel of your own use --kernel-dir"
        )
    return unsigned or names


def _apt(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RecordingError(
            f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return done.stdout
