"""The replay of some candidates on disk while it goes on: one that was killed goes on from its last call."""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxswap.errors import InputError, reason
from jaxswap.machine.kept import Halfway
from jaxswap.workload.files import make_folder, write_whole

SECONDS = 60.0
"""Between two writings: what a kill costs at most, beside compiling. Writing takes well under a second."""
SHARE = 20
"""Where it takes longer, the next comes after so many times as long, so that it costs a twentieth at most."""


class Checkpoint:
    """The file of one replay. identity: of everything that decides what the replay comes to.

    A file that is damaged or another replay's is said on stderr, and the replay begins anew; so is one that
    cannot be written, and there will be none.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self._began = time.monotonic()
        self._before = 0.0
        self._due = self._began + SECONDS

    @property
    def seconds(self) -> float:
        """What the replay took until now, in this process and in those it goes on from."""
        return self._before + time.monotonic() - self._began

    def read(self, like: Halfway) -> Halfway | None:
        """What is kept of this replay, if anything is."""
        if not os.path.exists(self.path):
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["identity"] != self._identity:
                    raise ValueError("it is of another replay")
                found = Halfway(
                    int(about["at"]), file["totals"], [file[f"state{i}"] for i in range(len(like.arrays))]
                )
            for kept, wanted in zip((found.totals, *found.arrays), (like.totals, *like.arrays), strict=True):
                if kept.shape != wanted.shape or kept.dtype != wanted.dtype:
                    raise ValueError(
                        f"it holds {kept.dtype}{list(kept.shape)} for {wanted.dtype}{list(wanted.shape)}"
                    )
            self._before = float(about["seconds"])
            return found
        except Exception as error:  # zipfile and numpy raise many kinds for damaged bytes
            said = (reason(error).splitlines() or [type(error).__name__])[0]
            _say(f"{self.path}: is no checkpoint of this replay ({said[:200]}); the replay begins anew")
            return None

    def offer(self, now: Halfway) -> None:
        """Write this if it is time to."""
        start = time.monotonic()
        if start < self._due:
            return
        about = {"identity": self._identity, "at": now.at, "seconds": round(self.seconds, 2)}
        arrays: dict[str, Any] = {f"state{i}": array for i, array in enumerate(now.arrays)}
        try:
            make_folder(self.path.parent, "checkpoint")
            write_whole(
                self.path,
                lambda file: np.savez(file, about=np.array(json.dumps(about)), totals=now.totals, **arrays),
                "checkpoint",
            )
        except InputError as error:
            _say(f"{error}; the replay goes on without one")
            self._due = float("inf")
            return
        end = time.monotonic()
        self._due = end + max(SECONDS, SHARE * (end - start))

    def remove(self) -> None:
        """The replay is over, and what it gave is kept."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
