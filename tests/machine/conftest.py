"""Compiling the step takes longest here, and these tests run few operations: they do without the optimiser.

Modules whose tests look at speed or at compiled code are named in OPTIMISED.
"""

from collections.abc import Iterator

import jax
import pytest

OPTIMISED = ("test_structure",)
"""Modules that compile as users do."""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile without optimisation in all modules but those of OPTIMISED."""
    quick = request.module.__name__.rpartition(".")[2] not in OPTIMISED
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
