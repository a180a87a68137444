"""What planning clients answer: checked before it has a say in the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from fedcert.certificates import Recipe
from fedcert.certificates.recipes.base import require_integer, require_number
from fedcert.errors import CertificateError, ProtocolError
from fedcert.planning.menu import worth_trying
from fedcert.planning.plan import Replayed, check_promised

__all__ = ["replays_from_config", "replays_to_config"]

_KEYS = {field.name for field in fields(Replayed)} - {"promised"}


def replays_to_config(replays: Iterable[Replayed]) -> list[dict[str, Any]]:
    """Return replays as a JSON array."""
    return [
        {name: value for name, value in asdict(replayed).items() if value is not None}
        for replayed in replays
    ]


def replays_from_config(
    config: object, recipes: Sequence[Recipe], sizes: Sequence[int]
) -> list[Replayed]:
    """Read a planning client's answer, all or nothing.

    Parameters
    ----------
    config : object
        What the client sent, JSON from `replays_to_config` if it is honest.
    recipes : sequence of Recipe
        What it was asked to replay.
    sizes : sequence of int
        Values of n that it was asked for.

    Returns
    -------
    list of Replayed
        The checked rows.

    Raises
    ------
    ProtocolError
        If a row is malformed, was not asked for or comes twice, a bound is one that its
        recipe cannot give, or a size lacks some of the recipes.
    """
    if not isinstance(config, list):
        raise ProtocolError("its replays are not a list")
    try:
        found = [_row(entry, recipes, sizes) for entry in config]
    except CertificateError as error:
        raise ProtocolError(f"one of its replays is wrong: {error}") from error
    pairs = {(row.n, row.recipe) for row in found}
    # Whoever leaves out recipes would choose among the rest.
    asked = {
        (n, index)
        for n in {row.n for row in found}
        for index, recipe in enumerate(recipes)
        if worth_trying(recipe, n)
    }
    if not found or len(pairs) != len(found) or pairs != asked:
        raise ProtocolError("its replays are not each recipe once at every size")
    return found


def _row(entry: object, recipes: Sequence[Recipe], sizes: Sequence[int]) -> Replayed:
    if not isinstance(entry, Mapping) or set(entry) - {"promised"} != _KEYS:
        raise CertificateError(f"a replay must hold {', '.join(sorted(_KEYS))} alone")
    require_integer("recipe", entry["recipe"], 0, len(recipes) - 1)
    require_integer("n", entry["n"], 1, max(sizes))
    for name in ("bound", "mean"):
        require_number(name, entry[name])
    replayed = Replayed(
        entry["recipe"],
        entry["n"],
        float(entry["bound"]),
        float(entry["mean"]),
        entry.get("promised"),
    )
    check_promised(recipes[replayed.recipe], replayed.promised)
    if replayed.n not in sizes:
        raise CertificateError(f"nobody asked for n = {replayed.n}")
    lowest = recipes[replayed.recipe].lowest_bound(replayed.n)
    for name in ("bound", "mean"):
        value = getattr(replayed, name)
        if not lowest <= value <= 1:
            raise CertificateError(
                f"the {name} must be from {lowest:g} to 1 with {replayed.n} examples, not "
                f"{value:g}"
            )
    return replayed
