"""Properties that hold for drawn inputs (hypothesis): 25 examples in the default suite, thousands in the slow one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FEW, MANY = 25, 2000
EVERY_PHASE = (Phase.explicit, Phase.generate, Phase.shrink)  # but for what explains failures, which is slow

# Tensors are built from a seed: drawing them number by number would take most of the time.
seeds = st.integers(0, 2**32 - 1)


def holds_for(few: int = FEW, many: int = MANY, **strategies: st.SearchStrategy) -> Callable:
    """Makes two tests of a property, a function of what `strategies` draw: one of `few` examples, and a slow one of
    `many`. Both draw the same examples whenever the same code is run."""

    def of(check: Callable) -> Callable:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])
        def test(examples: int) -> None:
            run(check, examples, **strategies)

        test.__doc__ = check.__doc__
        return test

    return of


def run(check: Callable, examples: int, **strategies: st.SearchStrategy) -> None:
    """Checks a property for so many examples, the same ones whenever the same code is run."""
    chosen = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=EVERY_PHASE,
        suppress_health_check=list(HealthCheck),
    )
    chosen(given(**strategies)(check))()
