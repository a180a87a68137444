"""Labels of a run against those of what it goes on with: base model, pool, and bundle."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from faults.device_rig import LABELS
from faults.node_rig import NodeRig

from fedcert.errors import ModelError, PoolError


def test_a_run_with_the_labels_in_another_order_is_refused(tmp_path: Path) -> None:
    rig = NodeRig.make(tmp_path, upstream=1, new=1)
    # The base model that the pool's clients had has them in the first order.
    rig.serve_here()
    swapped = ",".join(reversed(LABELS))
    other = replace(rig, config={**rig.config, "scenario.options.labels": swapped})
    with pytest.raises(ModelError, match="in this order"):
        other.serve_here()
    # Nor does another base model, with no labels of its own, hide it.
    backbone = {**other.config, "scenario.options.base": str(rig.folder / "backbone")}
    with pytest.raises(PoolError, match=r"has the labels .*, in this order"):
        replace(other, config=backbone).serve_here()
    # Nor a pool of before labels were kept there.
    with closing(sqlite3.connect(rig.run / "pool" / "pool.sqlite")) as index, index:
        index.execute("DELETE FROM labels")
    with pytest.raises(PoolError, match="bundle has the labels"):
        replace(other, config=backbone).serve_here()
