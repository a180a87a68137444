"""What the server publishes: numbered bundles, made from a prior and kept in the run folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically
from fedcert.bundles import Bundle
from fedcert.bundles.versions import BundleVersions
from fedcert.canonical import digest_json, digest_tensors
from fedcert.certificates import Certificate, Promise, RecipeTable
from fedcert.data.examples import Examples
from fedcert.errors import CertificateError, RefusalError, SettingsError
from fedcert.fitting import FittedPrior, bundle_of, make_bundle, noised_mean, privacy_notes
from fedcert.models.base import BaseModel
from fedcert.pool import Pool
from fedcert.pool.store import check_labels
from fedcert.priors import PointPrior, Prior
from fedcert.privacy import MeanPrivacy, epsilon_of
from fedcert.privacy.gaussian import composed
from fedcert.protocol.witness import Countersignature
from fedcert.scenarios import Scenario
from fedcert.settings import RunSettings
from fedcert.settings.sections import Section
from fedcert.strategies.latest import LatestBundle
from fedcert.strategies.mean_releases import MeanReleases
from fedcert.strategies.noise import server_noise
from fedcert.strategies.sources import NoPriorError

__all__ = ["Publisher", "reference_of"]


class Publisher:
    """Makes the bundles of one run folder, numbers them, and keeps them.

    Parameters
    ----------
    output : Path
        The run folder.
    settings : RunSettings
        What the bundles are to be like.
    scenario : Scenario
        The task.
    base : BaseModel
        What the adapters are for.
    space : AdapterSpace
        Their coordinates.
    pool : Pool
        The run's.
    server : str, optional
        Public key of the server whose seeds count, which new bundles then name.
    trunk : Mapping, optional
        What the base model's warm start promises about the clients that trained it.
    """

    def __init__(
        self,
        output: Path,
        settings: RunSettings,
        *,
        scenario: Scenario,
        base: BaseModel,
        space: AdapterSpace,
        pool: Pool,
        server: str | None = None,
        trunk: Mapping[str, Any] | None = None,
    ) -> None:
        self._output, self._pool, self._labels = output, pool, scenario.labels
        self._versions, self._trunk = BundleVersions(output), trunk
        self._made_for: dict[str, Any] = {
            "base": base,
            "space": space,
            "inputs": scenario.inputs,
            "labels": scenario.labels,
            "settings": settings,
            "server": server,
            "reference": reference_of(settings, scenario),
        }
        self._fingerprint = _fingerprint(settings, scenario)
        self._refit_after = settings.server.refit_after

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other runs out of the folder, and refuse what was made for other labels.

        Raises
        ------
        RunError
            If another run is at work in it.
        BundleError
            If the latest bundle is damaged.
        PoolError
            If what is there was made for other labels.
        """
        with self._pool.reserved():
            self._versions.restore()
            if self.latest is not None:  # a pool of before labels were kept
                known = self.latest.bundle.labels
                check_labels(self._labels, known, whose=f"{self._output / 'bundle'}")
            self._pool.reserve_for(self._labels)
            yield

    @cached_property
    def latest(self) -> LatestBundle | None:
        """The newest bundle as the run began, and the rule by which it serves or not.

        Raises
        ------
        BundleError
            If it is damaged.
        """
        found = self._versions.latest()
        if found is None:
            return None
        bundle, provenance = found
        return LatestBundle(
            bundle,
            frozenset(provenance.clients),
            self._refit_after,
            outdated=provenance.settings != self._fingerprint,
        )

    def from_pool(self, fitted: FittedPrior) -> Bundle:
        """Make the next version from a prior that was fitted to the pool.

        Raises
        ------
        NoPriorError
            If an earlier version promises that nothing but noised means is published.
        """
        self._check_promised()
        notes = self._pool_notes()
        return make_bundle(fitted, uploads=notes, released=self._released(), **self._made_for)

    def from_average(self, pool: FloatArray, recipes: RecipeTable | None) -> Bundle:
        """Make the next version of the pool's mean, which is one point.

        Parameters
        ----------
        pool : numpy.ndarray
            The adapters, shape ``(N, d)``.
        recipes : RecipeTable or None
            Which recipe serves which n, if not as the settings say.

        Returns
        -------
        Bundle
            Not yet written anywhere.

        Raises
        ------
        NoPriorError
            If an earlier version promises that nothing but noised means is published.
        """
        settings: RunSettings = self._made_for["settings"]
        notes = {
            **self._pool_notes(),
            "choice": f"the mean of {len(pool)} adapters",
            "pool": len(pool),
            "privacy": privacy_notes(settings.upload_privacy(), self._released()),
        }
        return self.from_sums(PointPrior.fit(pool, seed=settings.seed), notes, recipes)

    def _pool_notes(self) -> dict[str, Any]:
        pool = self._pool
        return pool.residuals() | self._place() | {"pool_digest": pool.digest()}

    def _place(self) -> dict[str, Any]:
        """Return what the notes of every bundle say: its place, and what its base promises."""
        known = {} if self._trunk is None else {"warm_start": dict(self._trunk)}
        return self._versions.next_notes() | known

    def _released(self) -> list[float | None]:
        return [entry.mu for entry in self._pool.entries()]

    def _check_promised(self) -> None:
        if self._published_means():
            raise NoPriorError(
                "the bundles so far promise that nothing but noised means of this pool is "
                "published (privacy.central_epsilon); set it again, or take a new run folder"
            )

    def from_mean(self, pool: FloatArray, privacy: MeanPrivacy) -> Bundle:
        """Make the next version of a noised mean, and of nothing else in the pool.

        Raises
        ------
        NoPriorError
            If what was published before leaves no budget for it.
        """
        settings: RunSettings = self._made_for["settings"]
        place, trunk = self._place(), 0.0 if self._trunk is None else float(self._trunk["mu"])
        one_of_each = epsilon_of(composed(trunk, privacy.mu), privacy.delta)
        promise = [privacy.clip, privacy.epsilon, privacy.delta]
        told = {"pool": digest_tensors({"pool": pool}), "promise": promise, **place}
        listed = self._means_before()
        try:
            account = MeanReleases(self._output / "pool" / "releases.json")
            release = account.of(digest_json(told), privacy.mu)
            prior, notes = noised_mean(
                pool,
                privacy=privacy,
                budget=settings.privacy.budget or one_of_each,
                before=account.before(release, listed),
                trunk=trunk,
                generator=server_noise(settings, place["version"], secret=release.seed),
            )
            account.note(release)
        except RefusalError as error:
            raise NoPriorError(str(error)) from error
        return bundle_of(prior, {**notes, **place}, **self._made_for)

    def _means_before(self) -> tuple[float, ...]:
        """Return mu of each version so far, by the latest one.

        Raises
        ------
        NoPriorError
            If one of them holds more of the pool than a noised mean: nothing can be promised.
        """
        if self.latest is None:
            return ()
        known = self._published_means()
        if not known:
            raise NoPriorError(
                f"version {self.latest.bundle.version} of the bundle was published without "
                "privacy.central_epsilon, so noise on the next one promises nothing to the "
                "same clients; take a new run folder"
            )
        return known

    def _published_means(self) -> tuple[float, ...]:
        """Return mu of each noised mean among the versions: the latest lists all of them."""
        said = None if self.latest is None else self.latest.bundle.notes.get("privacy")
        known = said.get("releases", ()) if isinstance(said, Mapping) else ()
        return tuple(float(mu) for mu in known)

    def from_sums(
        self, prior: Prior, notes: Mapping[str, Any], recipes: RecipeTable | None = None
    ) -> Bundle:
        """Make the next version from a prior that was made without a look at a pool.

        Parameters
        ----------
        prior : Prior
            The prior.
        notes : Mapping
            How it came about.
        recipes : RecipeTable, optional
            Which recipe serves which n, if not as the settings say.

        Returns
        -------
        Bundle
            Not yet written anywhere.

        Raises
        ------
        NoPriorError
            If an earlier version promises that nothing but noised means is published.
        """
        self._check_promised()
        noted = {**notes, **self._place()}
        return bundle_of(prior, noted, recipes=recipes, **self._made_for)

    def keep(self, bundle: Bundle, *, clients: Iterable[str]) -> None:
        """Write a new version; one that is there already stays as it is.

        Parameters
        ----------
        bundle : Bundle
            Of `from_pool` or `from_sums`, maybe with a plan, or `latest`.
        clients : iterable of str
            Those behind it.
        """
        if self.latest is None or bundle.digest != self.latest.bundle.digest:
            self._versions.add(bundle, settings=self._fingerprint, clients=clients)

    def file(self, certificate: Certificate, witness: Countersignature) -> None:
        """Write a certificate and its countersignature.

        Those of an earlier attempt are kept in ``earlier``: they hold as before, for the bundle
        that they name.
        """
        texts = {
            "witnesses": witness.to_json(),
            "certificates": certificate.to_json(),
        }
        for folder, text in texts.items():
            path = self._output / folder / f"{certificate.client}.json"
            if path.is_file() and path.read_bytes() != text.encode():
                earlier = path.parent / "earlier"
                earlier.mkdir(exist_ok=True)
                path.rename(earlier / f"{path.stem}.before-attempt-{witness.attempt}.json")
            write_atomically(path, text.encode())


def reference_of(settings: RunSettings, scenario: Scenario) -> Examples | None:
    """Return the sample that the bundle carries, if certificates promise something about it.

    Raises
    ------
    SettingsError
        If certificates are to promise what says nothing of this task.
    """
    promises: Sequence[Promise[Any]] = settings.certificate.shares()["promises"]
    for promise in promises:
        try:
            promise.check_task(len(scenario.labels), own_labels=not scenario.labels)
        except CertificateError as error:
            raise SettingsError(f"setting 'certificate.promises': {error}") from error
    if not any(promise.public for promise in promises):
        return None
    sample = scenario.reference_examples()
    if sample is None or not len(sample):
        raise SettingsError(
            f"certificate.promises asks for 'reference', and the scenario "
            f"{scenario.name!r} keeps no reference sample: set its option `reference`, if it "
            "has one, to a number of examples, such as 500"
        )
    return sample


# Settings that came after the first digests: at their default they say nothing new, and a run
# that began before them goes on with its bundle.
_LATER = {
    ("certificate", "first_share"),
    ("certificate", "point"),
    ("certificate", "points"),
    ("certificate", "promised"),
    ("certificate", "promises"),
    ("certificate", "randomized"),
    ("certificate", "simultaneous"),
    ("planning", "most"),
    ("planning", "objective"),
    ("planning", "posterior"),
    ("privacy", "central_epsilon"),
}


def _fingerprint(settings: RunSettings, scenario: Scenario) -> str:
    """Return a digest of what a bundle depends on beside adapters and base model."""
    sections = {
        name: _spelled_out(name, getattr(settings, name))
        for name in ("prior", "privacy", "certificate", "planning")
    }
    del sections["certificate"]["support_size"]  # how many labels new clients have here
    if settings.method != "prior":  # which the digests of before do not name
        del sections["prior"]
        sections["method"] = {"kind": settings.method} | {
            name: getattr(settings, name).model_dump()
            for name in ("averaging", "personal", "training")
        }
    words = sections | {
        "seed": settings.seed,
        "planning": sections["planning"] if settings.planned else None,
        "inputs": scenario.inputs.to_config(),
        "labels": list(scenario.labels),
    }
    return digest_json(words)


def _spelled_out(name: str, section: Section) -> dict[str, Any]:
    defaults = type(section)().model_dump()
    return {
        key: value
        for key, value in section.model_dump().items()
        if (name, key) not in _LATER or value != defaults[key]
    }
