"""Putting a fitted prior together with what else a device downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.certificates import RecipeTable
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.fitting.prior import FittedPrior
from fedcert.models.base import BaseModel
from fedcert.priors import InterpolatedPrior, Prior
from fedcert.privacy import UploadPrivacy
from fedcert.settings import RunSettings
from fedcert.settings.recipes import recipe_table

__all__ = ["bundle_of", "make_bundle", "privacy_notes"]

_NO_PRIVACY = "no formal privacy: prior and directions were fitted to plain uploads"


def make_bundle(
    fitted: FittedPrior,
    *,
    base: BaseModel,
    space: AdapterSpace,
    inputs: InputSpec,
    labels: tuple[str, ...],
    settings: RunSettings,
    uploads: Mapping[str, Any] | None = None,
    released: Sequence[float | None] = (),
    server: str | None = None,
    reference: Examples | None = None,
) -> Bundle:
    """Put together what devices download.

    Parameters
    ----------
    fitted : FittedPrior
        The prior and the evidence about it.
    base, space, inputs, labels
        The task.
    settings : RunSettings
        Settings of the run.
    uploads : Mapping, optional
        Further entries for the notes.
    released : sequence of (float or None)
        What each client behind the prior has released, as mu; None for a plain upload. Of
        what is not known nothing is promised.
    server : str, optional
        Public key of the server whose seeds count.
    reference : Examples, optional
        The sample that the bundle carries.

    Returns
    -------
    Bundle
        The bundle, not yet written anywhere.
    """
    prior, keep = fitted.prior, settings.prior.keep
    if keep:
        prior = InterpolatedPrior(prior, center=fitted.fitted_on.mean(axis=0), keep=keep)
    return bundle_of(
        prior,
        {
            **fitted.notes(),
            **(uploads or {}),
            **({"kept_of_mean": keep} if keep else {}),
            "privacy": privacy_notes(settings.upload_privacy(), released),
        },
        base=base,
        space=space,
        inputs=inputs,
        labels=labels,
        settings=settings,
        server=server,
        reference=reference,
    )


def privacy_notes(
    offered: UploadPrivacy | None, released: Sequence[float | None]
) -> dict[str, Any] | str:
    """Say what is promised of the uploads behind a bundle; see `make_bundle` for `released`."""
    noisy = [mu for mu in released if mu is not None]
    if offered is None or not released:
        return _NO_PRIVACY
    if len(noisy) < len(released):
        return f"{_NO_PRIVACY}, {len(released) - len(noisy)} of the {len(released)} in the pool"
    return offered.notes(noisy)


def bundle_of(
    prior: Prior,
    notes: Mapping[str, Any],
    *,
    base: BaseModel,
    space: AdapterSpace,
    inputs: InputSpec,
    labels: tuple[str, ...],
    settings: RunSettings,
    server: str | None = None,
    recipes: RecipeTable | None = None,
    reference: Examples | None = None,
) -> Bundle:
    """Put a prior, however it came about, together with what devices need beside it.

    `server` is the public key of the server whose seeds count for the bundle, if one does.

    Parameters
    ----------
    prior : Prior
        The prior that devices draw from.
    notes : Mapping
        What was chosen and why, and what the audits found: a JSON object.
    base : BaseModel
        The base model.
    space : AdapterSpace
        The coordinates of adapters.
    inputs : InputSpec
        How inputs become tensors.
    labels : tuple of str
        Names of the labels, by index.
    settings : RunSettings
        The run's, from which the recipe table follows.
    server : str, optional
        Public key of the server whose seeds count for the bundle, if one does.
    recipes : RecipeTable, optional
        Which recipe serves which n, if not as the settings say.
    reference : Examples, optional
        The sample that the bundle carries.

    Returns
    -------
    Bundle
        The bundle, not yet written anywhere.

    Raises
    ------
    CertificateError
        If certificates are to promise what says nothing for these labels.
    """
    recipes = recipes or recipe_table(settings)
    for _, recipe in recipes.rows:
        for promise in recipe.promises:
            promise.check_task(len(labels), own_labels=not labels)
    local = Path(base.name).exists()
    return Bundle(
        # A local path means nothing on another machine; the digest is the identity.
        base_name=Path(base.name).name if local else base.name,
        base_revision=base.revision,
        base_digest=space.base_digest,
        space=space,
        prior=prior,
        inputs=inputs,
        labels=labels,
        recipes=recipes,
        notes=notes,
        server=server,
        reference=reference,
    )
