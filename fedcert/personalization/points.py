"""Operating points: one support set certifies at several depths and precisions at once.

Each point has a base model, a bundle, and an adapter of its own. What makes the certificates
hold together stands in the bundles (`fedcert.certificates.PointsPromise`): the points, and an
equal part of delta for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.peft_format import exported_digest
from fedcert.adapters.task import Task
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Early,
    PointsPromise,
    Recipe,
    Span,
    points_of,
    verify_record,
)
from fedcert.data.examples import Examples
from fedcert.errors import BundleError, CertificateError
from fedcert.models.base import BaseModel
from fedcert.personalization.committing import in_certified_order
from fedcert.personalization.keeping import EarlyPoints, answers_of, parted
from fedcert.personalization.personalizing import Personalization, personalize

__all__ = ["CertifiedPoint", "CertifiedPoints", "personalize_points", "point_named"]


@dataclass(frozen=True)
class CertifiedPoint:
    """An operating point that a client has a certificate for, and can run.

    Attributes
    ----------
    certificate : Certificate
        Its certificate.
    adapter : Path
        Its adapter folder.
    bundle : Bundle
        The bundle that the certificate names.
    base : BaseModel
        The bundle's base model.
    """

    certificate: Certificate
    adapter: Path
    bundle: Bundle
    base: BaseModel

    @property
    def task(self) -> Task:
        """The bundle's task, with the client's labels."""
        return self.bundle.task(self.base, labels=self.certificate.label_set)

    @property
    def name(self) -> str:
        """The point's name; empty if the certificate is of none."""
        point = points_of(self.certificate.recipe.promises)
        return "" if point is None else point.point

    def problem(
        self, recipe: Recipe, ordered: Examples, span: Span, *, client: str
    ) -> str | None:
        """Say why no policy may take this adapter first; None if one may.

        The certifying examples of the policy must have had no part in choosing the adapter,
        but for the part that the adapter's own weight pays for.

        Parameters
        ----------
        recipe : Recipe
            Of the point that the policy goes on to.
        ordered : Examples
            The support set in the order drawn for that point.
        span : Span
            Which of them certify there.
        client : str
            Stable id of the client.

        Returns
        -------
        str or None
            A clause.
        """
        made, late = self.certificate, points_of(recipe.promises)
        if made.digests.bundle != self.bundle.digest:
            return "it was certified for another bundle"
        early = points_of(made.recipe.promises)
        if late is None or early is None or early.family != late.family:
            return "it is none of the operating points that the bundle names"
        known = made.client == client and made.support_size == len(ordered)
        if not known or made.digests.support != ordered.multiset_digest(made.candidate.seed):
            return "it is another client's, or was certified on other examples"
        if not (self._is_fixed or self._certified_by(ordered, parted(ordered, span)[0])):
            return "other examples certify it, so it may depend on those that certify here"
        sound = verify_record(made).passed
        if not sound or exported_digest(self.adapter) != made.digests.adapter:
            return "its adapter is not the certified one"
        return None

    @property
    def _is_fixed(self) -> bool:
        """Whether no example had any part in choosing the adapter."""
        made = self.certificate
        return made.recipe.hypotheses == 1 and not made.recipe.choosing(made.support_size).size

    def _certified_by(self, examples: Examples, certifying: Examples) -> bool:
        """Return whether exactly these of a support set's examples certify the adapter."""
        made = self.certificate
        span = made.recipe.certifies_on(made.choice, made.support_size)
        own, _ = parted(in_certified_order(made, examples), span)
        return own.multiset_digest("") == certifying.multiset_digest("")


class CertifiedPoints(EarlyPoints):
    """The operating points that a policy may take first.

    Parameters
    ----------
    points : sequence of CertifiedPoint
        In any order.
    client : str
        Whose certificates they must be.
    """

    def __init__(self, points: Sequence[CertifiedPoint], *, client: str) -> None:
        self._points = {point.name: point for point in points}
        self._client = client

    def early(
        self,
        point: str,
        recipe: Recipe,
        ordered: Examples,
        *,
        span: Span,
    ) -> Early | None:
        """Return what a point's adapter says of the examples; None if it may not be used."""
        found = self._points.get(point)
        if found is None or found.problem(recipe, ordered, span, client=self._client):
            return None
        made = found.certificate
        certifying, choosing = parted(ordered, span)
        return Early(
            adapter=made.digests.adapter,
            weight=made.recipe.weight(made.choice),
            choosing=answers_of(found.task, found.adapter, choosing) if len(choosing) else None,
            certifying=answers_of(found.task, found.adapter, certifying),
        )


def point_named(bundle: Bundle, size: int) -> PointsPromise:
    """Return which operating point a bundle is for support sets of a size.

    Raises
    ------
    BundleError
        If it is none.
    """
    point = points_of(bundle.recipes.recipe_for(size).promises)
    if point is None:
        raise BundleError(
            f"the bundle {bundle.digest[:12]} is no operating point: it was published without "
            "the setting certificate.points, so its certificates have all of delta"
        )
    return point


def personalize_points(
    points: Sequence[tuple[Bundle, AdaptedModel]],
    examples: Examples,
    *,
    client: str,
    key: Ed25519PrivateKey,
    folder: Path,
    on_point: Callable[[str], None] = lambda _name: None,
    **options: Any,
) -> dict[str, Personalization]:
    """Personalize and certify at several operating points, on the same examples.

    Parameters
    ----------
    points : sequence of tuple
        Bundle and model of each point, in any order.
    examples : Examples
        The support set, as in `personalize`.
    client : str
        Stable id of the client.
    key : Ed25519PrivateKey
        Signs the certificates.
    folder : Path
        Gets a folder for each point, named like it.
    on_point : callable
        Called with a point's name before it begins.
    **options
        Of `personalize`, for each of them.

    Returns
    -------
    dict
        What the client leaves with, by the points' names, in the order of the bundles' list.

    Raises
    ------
    BundleError
        If a bundle is no operating point, or they are not of one family.
    """
    ordered = list(_in_order(points, len(examples)))
    made: dict[str, Personalization] = {}
    certified: list[CertifiedPoint] = []
    for name, bundle, model in ordered:
        on_point(name)
        made[name] = personalize(
            bundle,
            model,
            examples,
            client=client,
            key=key,
            folder=folder / name,
            early=CertifiedPoints(certified, client=client),
            **options,
        )
        certified.append(
            CertifiedPoint(made[name].certificate, made[name].adapter, bundle, model.base)
        )
    return made


def _in_order(
    points: Sequence[tuple[Bundle, AdaptedModel]], size: int
) -> Iterator[tuple[str, Bundle, AdaptedModel]]:
    """Yield the points as their family lists them: an early exit is certified first."""
    if not points:
        raise CertificateError("there is no operating point to certify at")
    named = [point_named(bundle, size) for bundle, _ in points]
    family = named[0]
    if any(each.family != family.family for each in named):
        raise BundleError(
            "the bundles are of different families: they name other operating points, or "
            "share another delta, and their certificates would not hold together"
        )
    if any(bundle.labels != points[0][0].labels for bundle, _ in points):
        raise BundleError("the bundles are for other labels, or for the same in another order")
    names = [each.point for each in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BundleError(f"two bundles are the operating point {', '.join(twice)}")
    for name in family.points:
        if name in names:
            yield (name, *points[names.index(name)])
