"""Kernels as parameters of tests."""

import pytest

from jaxswap.machine.profile import PROFILES

SLOW_6_12 = pytest.param("6.12", marks=pytest.mark.slow)
"""Its machine takes long to compile."""
OLDER = [SLOW_6_12, *(name for name in PROFILES if name not in ("6.12", "7.3"))]
"""All but the newest."""
