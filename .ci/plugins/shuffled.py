"""A pytest plugin: the test files, and the tests in each, in another order.

The order follows from ``FEDCERT_ORDER``, a number. Files stay together, so that what a module
makes once is made once.
"""

from __future__ import annotations

import os
import random
from itertools import groupby

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files and the tests of each."""
    order = random.Random(os.environ.get("FEDCERT_ORDER", "1"))  # noqa: S311
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    order.shuffle(files)
    for tests in files:
        order.shuffle(tests)
    items[:] = [test for tests in files for test in tests]
