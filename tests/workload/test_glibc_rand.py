"""glibc's rand(), against the C library of this machine."""

import ctypes
import ctypes.util
import itertools

import pytest

from jaxswap.workload.glibc_rand import rand


def libc() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("c"))
    if not hasattr(library, "gnu_get_libc_version"):
        pytest.skip("needs glibc")
    return library


@pytest.mark.parametrize("seed", [1, 0, 2, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**31 + 1, 123456789])
def test_the_numbers_of_the_library(seed: int) -> None:
    library = libc()
    library.srand(ctypes.c_uint(seed))
    assert list(itertools.islice(rand(seed), 3000)) == [library.rand() for _ in range(3000)]


def test_an_unseeded_program() -> None:
    assert list(itertools.islice(rand(), 4)) == [1804289383, 846930886, 1681692777, 1714636915]
