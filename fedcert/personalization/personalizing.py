"""Personalizing a new client: bundle and labeled examples in, adapter and certificate out.

The order of the steps carries the validity of the certificate (docs/theory.md): the recipe
follows from n alone, seed and candidates from the server's answer to a commitment (or, without
a server, from the bundle and the client's name), the split from the seed and the content of
the examples; only then is anything scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.arrays import FloatArray
from fedcert.atomic import replaced_folder
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Digests,
    Sample,
    check_issuable,
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
from fedcert.errors import (
    CertificateError,
    ProtocolError,
    SettingsError,
)
from fedcert.personalization.committing import candidate_seed, order_seed
from fedcert.personalization.keeping import (
    EarlyPoints,
    ExportedEvidence,
    kept_promises,
    mark_threshold,
)
from fedcert.personalization.memory import MemoryPlan
from fedcert.personalization.requirements import (
    check_duplicates,
    check_model,
    check_size,
    names_of,
    recipe_for,
)
from fedcert.personalization.unlabeled import check_unlabeled, without_server
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.search import BatchedScorer, choose, exported_wrong
from fedcert.search.batched import check_precision

__all__ = [
    "Personalization",
    "personalize",
]


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
    names = names_of(bundle, labels)
    recipe = recipe_for(bundle, examples, names)
    check_issuable(client, names, recipe)
    duplicates = check_duplicates(examples, duplicates_are_real)
    # Where a commitment was made, the statement was made with it.
    repeats = check_unlabeled(
        bundle, examples, unlabeled, repeats_are_new=repeats_are_new or grant is not None
    )
    if grant is None:
        recipe = recipe.unwitnessed()
        check_size(names, recipe, len(examples))
        read = without_server(unlabeled, bundle.digest)
        seed = candidate_seed(bundle.digest, client, len(examples), labels, read)
        if state is not None:
            repeats = state.spend_unwitnessed(
                examples,
                client=client,
                bundle=bundle.digest,
                recipe=recipe,
                repeats_are_new=repeats_are_new,
                labels=labels,
                unlabeled=unlabeled,
            )
    else:
        if state is None:
            raise ProtocolError("a seed can be used only with the state that committed")
        opening = state.accept(
            grant,
            examples,
            bundle=bundle.digest,
            client=client,
            server=bundle.server,
            labels=labels,
            unlabeled=unlabeled,
        )
        read = opening.unlabeled
        repeats = state.spent.stated_new(opening.commitment.claim)
        recipe, seed = grant.recipe, grant.seed
        check_size(names, recipe, len(examples))
    support = examples.multiset_digest(seed)
    order = order_seed(
        recipe,
        seed,
        client=client,
        support_size=len(examples),
        labels=labels,
        witnessed=grant is not None,
    )
    ordered = in_drawn_order(examples, order)
    if state is not None and (kept := state.certificate(support)) is not None:
        _hand_out_again(kept, bundle, model, folder, ordered)
        return _handed_out(kept, folder, started)
    tolerance = recipe.margin_tolerance
    scorer = BatchedScorer(
        model,
        margin_tolerance=tolerance,
        memory_mib=memory.activations_mib,
        # What is not paid for a verifier chooses again, and ranks in float32.
        precision=precision if recipe.pays_for_choosing(len(examples)) else "float32",
        compile_stacked=compile_stacked,
    )
    chosen = choose(
        recipe,
        bundle.prior,
        scorer,
        ordered,
        seed=seed,
        constants=constant_adapters(bundle.space, len(names)),
        chunk=memory.chunk,
        unlabeled=unlabeled,
        on_scored=on_scored,
    )
    # Adapter and certificate take their places together: on a full disk the old pair stays.
    with replaced_folder(folder / "adapter") as staging:
        adapter_digest = _export(bundle, model, chosen.vector, staging)
        span = recipe.certifies_on(chosen.choice, len(examples))
        certifying = ordered.take(span.as_slice())
        # Counted anew with the adapter that is handed out, not with the search's arithmetic.
        wrong = exported_wrong(
            model.task,
            staging,
            certifying,
            margin_tolerance=tolerance,
        )
        promises = kept_promises(
            recipe,
            chosen.choice,
            ExportedEvidence(
                model.task,
                bundle.prior,
                staging,
                ordered,
                span=span,
                recipe=recipe,
                reference=bundle.reference,
                early=early,
            ),
        )
        mark_threshold(staging, promises)
        certificate = issue(
            client=client,
            recipe=recipe,
            errors=int(np.sum(wrong)),
            certified_on=len(wrong),
            support_size=len(examples),
            labels=names,
            index=chosen.index,
            seed=seed,
            vector=chosen.vector,
            digests=Digests(
                bundle=bundle.digest,
                base_model=bundle.base_digest,
                space=bundle.space.digest,
                prior=bundle.prior.digest,
                adapter=adapter_digest,
                support=support,
            ),
            key=key,
            first_stage=chosen.choice.first_stage,
            protocol=None if grant is None else grant.receipt,
            sample=Sample(
                unreadable=certifying.always_wrong,
                duplicates=duplicates,
                repeats=repeats,
            ),
            label_texts=None if labels is None else labels.texts,
            promises=promises,
            unlabeled=read,
        )
        if state is not None:
            state.keep(certificate)
        # Before the record: a note that fits no record is not read.
        counts = count_by_label(certifying.labels, wrong, names)
        write_by_label(folder, certificate, counts)
        certificate.write(folder / "certificate.json")
    return _handed_out(certificate, folder, started)


def _handed_out(certificate: Certificate, folder: Path, started: float) -> Personalization:
    return Personalization(
        certificate,
        folder / "adapter",
        time.perf_counter() - started,
        read_by_label(folder, certificate),
    )


def _export(bundle: Bundle, model: AdaptedModel, vector: FloatArray, folder: Path) -> str:
    """Write an adapter folder; return the digest of its tensors."""
    return write_peft_adapter(
        bundle.space,
        vector,
        folder,
        base_name=model.base.name,
        base=model.base,
        labels=bundle.labels or model.task.labels,
        inputs=bundle.inputs.to_config(),
    )


def _check_place(adapter: Path) -> None:
    """Refuse to put an adapter in the place of something that is none."""
    if adapter.exists() and not (adapter / "adapter_config.json").is_file():
        raise SettingsError(
            f"{adapter} is there and is no adapter folder; choose another output folder, or "
            "move it away"
        )


def _hand_out_again(
    certificate: Certificate,
    bundle: Bundle,
    model: AdaptedModel,
    folder: Path,
    ordered: Examples,
) -> None:
    """Write what a seed has given before, adapter and certificate, into a folder."""
    verify_record(certificate).require()
    with replaced_folder(folder / "adapter") as staging:
        digest = _export(bundle, model, certificate.adapter_vector, staging)
        if digest != certificate.digests.adapter:
            raise CertificateError(
                "the certificate that the state folder keeps for this seed is damaged: its "
                "adapter is another one; put the state folder back as it was"
            )
        # The state keeps no counts by label. Where they do not add up, none are shown.
        span = certificate.recipe.certifies_on(certificate.choice, len(ordered))
        certifying = ordered.take(span.as_slice())
        wrong = exported_wrong(
            model.task,
            staging,
            certifying,
            margin_tolerance=certificate.recipe.margin_tolerance,
        )
        counts = count_by_label(certifying.labels, wrong, certificate.labels)
        mark_threshold(staging, certificate.promises or ())
        write_by_label(folder, certificate, counts)
        certificate.write(folder / "certificate.json")
