"""Personalizing a new client: bundle and labeled examples in, adapter and certificate out.

The order of the steps carries the validity of the certificate (docs/theory.md): the recipe
follows from n alone, seed and candidates from the server's answer to a commitment (or, without
a server, from the bundle and the client's name), the split from the seed and the content of
the examples; only then is anything scored.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.peft_format import exported_digest, write_peft_adapter
from fedcert.arrays import FloatArray
from fedcert.atomic import replaced_folder
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Chosen,
    Digests,
    Recipe,
    Sample,
    issue,
    verify_record,
)
from fedcert.certificates.by_label import (
    ErrorsByLabel,
    count_by_label,
    read_by_label,
    write_by_label,
)
from fedcert.data.examples import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import CertificateError, FedcertError, SettingsError
from fedcert.personalization.authorizing import Authorized, Statements, authorize
from fedcert.personalization.keeping import (
    EarlyPoints,
    ExportedEvidence,
    kept_promises,
    mark_threshold,
)
from fedcert.personalization.memory import MemoryPlan
from fedcert.personalization.requirements import check_model
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.search import BatchedScorer, choose, exported_wrong
from fedcert.search.batched import check_precision

__all__ = ["Personalization", "personalize"]


@dataclass(frozen=True)
class Personalization:
    """What a new client leaves with.

    Attributes
    ----------
    certificate : Certificate
        Also written to ``certificate.json``.
    adapter : Path
        A PEFT adapter folder.
    seconds : float
        Wall time from examples to certificate.
    errors_by_label : Mapping or None
        By label, how many of its certifying examples were wrong, and how many there were:
        counts, which nothing certifies. None if the certificate was made before, elsewhere.
    """

    certificate: Certificate
    adapter: Path
    seconds: float
    errors_by_label: ErrorsByLabel | None = None


def personalize(
    bundle: Bundle,
    model: AdaptedModel,
    examples: Examples,
    *,
    client: str,
    key: Ed25519PrivateKey,
    folder: Path,
    precision: str = "float32",
    compile_stacked: bool = False,
    memory: MemoryPlan = MemoryPlan(),  # noqa: B008
    state: DeviceState | None = None,
    grant: SeedGrant | None = None,
    duplicates_are_real: bool = False,
    repeats_are_new: bool = False,
    early: EarlyPoints | None = None,
    unlabeled: Examples | None = None,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Personalization:
    """Choose the best candidate for a support set and certify it.

    Parameters
    ----------
    bundle : Bundle
        What the federation published.
    model : AdaptedModel
        That of `Bundle.task`; with the client's labels, if the bundle leaves them to clients.
    examples : Examples
        The support set: an i.i.d. sample of the client's own distribution, used for nothing
        else before.
    client : str
        Stable id of the client.
    key : Ed25519PrivateKey
        Signs the certificate.
    folder : Path
        Gets ``adapter/``, ``certificate.json``, and a note of the errors by label.
    precision, compile_stacked
        How candidates are ranked, see `BatchedScorer`. A recipe that does not pay for its
        choice ranks in float32, so that a verifier can choose again.
    memory : MemoryPlan
        How much may be in memory at once; it does not change the result.
    state : DeviceState, optional
        Where the client keeps what it has spent, and the certificates that its seeds gave: one
        seed gives one certificate, whatever the folder. Without it nothing is refused as spent.
    grant : SeedGrant, optional
        The server's answer to `commit_to`; it needs `state`. Without it the certificate is
        unwitnessed.
    duplicates_are_real : bool (default: False)
        The client's statement that inputs which occur more than once in the support set were
        drawn more than once, and none was copied. The certificate repeats it.
    repeats_are_new : bool (default: False)
        The client's statement that spent inputs came up again in new observations
        (`SpentLedger.spend`). The certificate repeats it. With a grant, it was made with the
        commitment.
    early : EarlyPoints, optional
        Operating points that are certified on these examples already, for a promise about an
        early exit (`fedcert.personalization.points`).
    unlabeled : Examples, optional
        Inputs without labels, of the client's own distribution, where a method made the bundle
        that reads inputs (`Method.reads_inputs`). They are spent, and their labels are not
        looked at. With a grant, they are those that were committed to.
    on_scored : callable
        Called with the number of candidates that were scored since the last call.

    Returns
    -------
    Personalization
        The certificate and the adapter, which are in `folder` as well.

    Raises
    ------
    CertificateError
        If no certificate could name this client.
    DataError
        If the examples are empty or of one class, or an input occurs more than once.
    RefusalError
        If there are too few examples for a certificate to say anything, or some of them
        are already spent, or among the inputs without labels.
    ProtocolError
        If the grant is for something else than these examples, this bundle, or this client.
    SettingsError
        If candidates cannot be ranked in the precision, or something else than an adapter is
        where it is to go.
    """
    started = time.perf_counter()
    check_precision(precision)
    _check_place(folder / "adapter")
    check_model(bundle, model)
    labels = model.task.label_set if bundle.takes_labels else None
    allowed = authorize(
        bundle,
        examples,
        client=client,
        labels=labels,
        stated=Statements(duplicates_are_real, repeats_are_new),
        state=state,
        grant=grant,
        unlabeled=unlabeled,
    )
    own = _Certifying(
        bundle,
        model,
        allowed,
        in_drawn_order(examples, allowed.order),
        client=client,
        support=examples.multiset_digest(allowed.seed),
        folder=folder,
    )
    certificate = None if state is None else state.certificate(own.support)
    # A state folder of before kept no certificates.
    certificate = certificate or own.made_before()
    if certificate is not None:
        own.hand_out_again(certificate)
    else:
        recipe = allowed.recipe
        scorer = BatchedScorer(
            model,
            margin_tolerance=recipe.margin_tolerance,
            memory_mib=memory.activations_mib,
            # What is not paid for a verifier chooses again, and ranks in float32.
            precision=precision if recipe.pays_for_choosing(len(examples)) else "float32",
            compile_stacked=compile_stacked,
        )
        chosen = choose(
            recipe,
            bundle.prior,
            scorer,
            own.ordered,
            seed=allowed.seed,
            constants=constant_adapters(bundle.space, len(allowed.names)),
            chunk=memory.chunk,
            unlabeled=unlabeled,
            on_scored=on_scored,
        )
        certificate = own.certify(chosen, key=key, state=state, early=early)
    return Personalization(
        certificate,
        folder / "adapter",
        time.perf_counter() - started,
        read_by_label(folder, certificate),
    )


@dataclass(frozen=True)
class _Certifying:
    """A client's support set in the order that its seed drew, and where its files go."""

    bundle: Bundle
    model: AdaptedModel
    allowed: Authorized
    ordered: Examples
    _: KW_ONLY
    client: str
    support: str
    folder: Path

    def certify(
        self,
        chosen: Chosen,
        *,
        key: Ed25519PrivateKey,
        state: DeviceState | None,
        early: EarlyPoints | None,
    ) -> Certificate:
        """Count the errors of what was chosen, and write adapter and certificate."""
        bundle, allowed, ordered = self.bundle, self.allowed, self.ordered
        # Adapter and certificate take their places together: on a full disk the old pair stays.
        with replaced_folder(self.folder / "adapter") as staging:
            adapter_digest = self._export(chosen.vector, staging)
            span = allowed.recipe.certifies_on(chosen.choice, len(ordered))
            certifying = ordered.take(span.as_slice())
            # Counted anew with the adapter that is handed out, not with the search's
            # arithmetic.
            wrong = self._wrong(allowed.recipe, staging, certifying)
            evidence = ExportedEvidence(
                self.model.task,
                bundle.prior,
                staging,
                ordered,
                span=span,
                recipe=allowed.recipe,
                reference=bundle.reference,
                early=early,
            )
            promises = kept_promises(allowed.recipe, chosen.choice, evidence)
            certificate = issue(
                client=self.client,
                recipe=allowed.recipe,
                errors=int(np.sum(wrong)),
                certified_on=len(wrong),
                support_size=len(ordered),
                labels=allowed.names,
                index=chosen.index,
                seed=allowed.seed,
                vector=chosen.vector,
                digests=Digests(
                    bundle=bundle.digest,
                    base_model=bundle.base_digest,
                    space=bundle.space.digest,
                    prior=bundle.prior.digest,
                    adapter=adapter_digest,
                    support=self.support,
                ),
                key=key,
                first_stage=chosen.choice.first_stage,
                protocol=allowed.receipt,
                sample=Sample(
                    unreadable=certifying.always_wrong,
                    duplicates=allowed.duplicates,
                    repeats=allowed.repeats,
                ),
                label_texts=allowed.label_texts,
                promises=promises,
                unlabeled=allowed.unlabeled,
            )
            if state is not None:
                state.keep(certificate)
            self._write(certificate, staging, certifying, wrong)
        return certificate

    def made_before(self) -> Certificate | None:
        """Return the certificate in the folder that a server's seed has given already, if any.

        One seed gives one certificate: a search with other settings, or on another machine,
        may rank candidates otherwise, and somebody could choose between two.
        """
        if self.allowed.receipt is None:
            return None
        try:
            made = Certificate.read(self.folder / "certificate.json")
        except FedcertError:
            return None
        same = made.protocol == self.allowed.receipt
        return made if same and verify_record(made).passed else None

    def hand_out_again(self, certificate: Certificate) -> None:
        """Write what the seed has given before, adapter and certificate."""
        verify_record(certificate).require()
        with replaced_folder(self.folder / "adapter") as staging:
            # What is whole stays: other machines may expand a vector to other last bits.
            if self._holds(certificate):
                shutil.copytree(self.folder / "adapter", staging, dirs_exist_ok=True)
            elif (
                self._export(certificate.adapter_vector, staging) != certificate.digests.adapter
            ):
                raise CertificateError(
                    "the certificate that was kept for this seed is damaged: its adapter is "
                    "another one; put the state folder back as it was"
                )
            # The state keeps no counts by label. Where they do not add up, none are shown.
            span = certificate.recipe.certifies_on(certificate.choice, len(self.ordered))
            certifying = self.ordered.take(span.as_slice())
            wrong = self._wrong(certificate.recipe, staging, certifying)
            self._write(certificate, staging, certifying, wrong)

    def _holds(self, certificate: Certificate) -> bool:
        """Return whether the folder's adapter is the certified one."""
        try:
            return exported_digest(self.folder / "adapter") == certificate.digests.adapter
        except FedcertError:
            return False

    def _export(self, vector: FloatArray, staging: Path) -> str:
        """Write an adapter folder; return the digest of its tensors."""
        return write_peft_adapter(
            self.bundle.space,
            vector,
            staging,
            base_name=self.model.base.name,
            base=self.model.base,
            labels=self.bundle.labels or self.model.task.labels,
            inputs=self.bundle.inputs.to_config(),
        )

    def _wrong(
        self, recipe: Recipe, staging: Path, certifying: Examples
    ) -> npt.NDArray[np.bool_]:
        return exported_wrong(
            self.model.task, staging, certifying, margin_tolerance=recipe.margin_tolerance
        )

    def _write(
        self,
        certificate: Certificate,
        staging: Path,
        certifying: Examples,
        wrong: npt.NDArray[np.bool_],
    ) -> None:
        """Complete the adapter folder, and write the record beside it."""
        mark_threshold(staging, certificate.promises or ())
        # Before the record: a note that fits no record is not read.
        counts = count_by_label(certifying.labels, wrong, certificate.labels)
        write_by_label(self.folder, certificate, counts)
        certificate.write(self.folder / "certificate.json")


def _check_place(adapter: Path) -> None:
    """Refuse to put an adapter in the place of something that is none."""
    if adapter.exists() and not (adapter / "adapter_config.json").is_file():
        raise SettingsError(
            f"{adapter} is there and is no adapter folder; choose another output folder, or "
            "move it away"
        )
