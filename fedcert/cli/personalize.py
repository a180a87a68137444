"""``fedcert personalize``: a bundle and a few labeled examples become a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.inputs import (
    base_name,
    key_path,
    load_bundle,
    own_labels,
    read_labeled,
    read_unlabeled,
)
from fedcert.cli.options import (
    Base,
    BundleDigest,
    BundlePath,
    DataPath,
    Device,
    DuplicatesAreReal,
    InputColumn,
    Key,
    LabelColumn,
    Labels,
    RepeatsAreNew,
    ServerKey,
    State,
    UnlabeledPath,
)
from fedcert.cli.outputs import check_certificate_folder
from fedcert.errors import ProtocolError
from fedcert.protocol.ledgers import state_of
from fedcert.reports.formats import decimal_up

if TYPE_CHECKING:
    from fedcert.bundles import Bundle
    from fedcert.personalization.memory import MemoryPlan

__all__ = ["personalize"]


def personalize(
    data: DataPath,
    bundle: BundlePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Gets adapter/ and certificate.json.")
    ],
    client: Annotated[str, typer.Option(help="Your stable id; the candidates depend on it.")],
    key: Key = None,
    seed: Annotated[
        Path | None,
        typer.Option(
            help="The server's answer to `commit`; without it the certificate is unwitnessed."
        ),
    ] = None,
    bundle_digest: BundleDigest = None,
    server_key: ServerKey = None,
    state: State = None,
    base_model: Base = None,
    device: Device = "auto",
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    labels: Labels = None,
    unlabeled: UnlabeledPath = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="MIB",
            help="Most memory for the whole process; too little is refused before anything "
            "is spent.",
        ),
    ] = None,
    duplicates_are_real: DuplicatesAreReal = False,
    repeats_are_new: RepeatsAreNew = False,
    precision: Annotated[
        str,
        typer.Option(help="Rank candidates in float32 or bfloat16; errors count in float32."),
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate.")] = False,
) -> None:
    """Turn a bundle and a few labeled examples into an adapter and a certificate.

    Needs no server, no Flower and no Ray. The examples must be a random sample of what the
    model will meet, not balanced by class, and used for nothing else before: examples that
    the state folder knows as spent are refused. For a witnessed certificate run `commit`
    first, send the commitment to the server, and give its answer as `--seed`.
    """
    from fedcert.certificates import check_client
    from fedcert.certificates.by_label import describe_by_label
    from fedcert.devices import describe_device, resolve_device
    from fedcert.personalization import personalize as run
    from fedcert.personalization.memory import MemoryPlan
    from fedcert.protocol.device import DeviceState
    from fedcert.protocol.seeds import SeedGrant
    from fedcert.records.signing import read_or_create_key
    from fedcert.reports.certificate_page import write_certificate_page

    check_client(client)
    loaded = load_bundle(bundle, bundle_digest)
    names, descriptions = own_labels(loaded, labels)
    examples = read_labeled(data, loaded, input_column, label_column, labels=names)
    grant = None if seed is None else SeedGrant.read(seed)
    if server_key is not None and (grant is None or grant.receipt.server != server_key):
        issuer = "nobody: give --seed" if grant is None else grant.receipt.server
        raise ProtocolError(f"the seed is from {issuer}; you expect the server {server_key}")
    place = resolve_device(device)
    base = loaded.load_base(base_name(bundle, base_model), device=place)
    if note := base.note_on(loaded.base_digest):
        say(f"note: {note}", wrap=True)
    model = loaded.task(base, labels=names, descriptions=descriptions).model()
    plan = MemoryPlan() if memory is None else _divided(memory, loaded)
    file = key_path(key)
    signer = read_or_create_key(file)
    check_certificate_folder(output, client=client, key=signer)
    result = run(
        loaded,
        model,
        examples,
        client=client,
        key=signer,
        folder=output,
        state=DeviceState(state or state_of(file)),
        grant=grant,
        precision=precision,
        memory=plan,
        duplicates_are_real=duplicates_are_real,
        repeats_are_new=repeats_are_new,
        unlabeled=read_unlabeled(unlabeled, loaded, input_column, label_column),
    )
    certificate = result.certificate
    page = output / "certificate.html"
    write_certificate_page(certificate, page)
    if as_json:
        typer.echo(certificate.to_json(), nl=False)
        return
    say(certificate.statement, wrap=True)
    say(f"bound:       {decimal_up(certificate.bound, 4)} (delta {certificate.delta:g})")
    if result.errors_by_label is not None:
        told = describe_by_label(result.errors_by_label)
        say(f"by label:    {told} (errors that were counted; the bound is for all together)")
    for outcome in certificate.promises or ():
        say(f"{outcome.kind + ':':<12} {outcome.row()}")
    say(f"device:      {describe_device(place)}")
    say(f"adapter:     {result.adapter}")
    say(f"certificate: {output / 'certificate.json'}")
    say(f"to read:     {page}")


def _divided(budget: float, bundle: Bundle) -> MemoryPlan:
    """Plan the memory once everything that the work needs is in it."""
    import peft  # noqa: F401

    from fedcert.personalization.memory import plan_memory

    bundle.prior.sample("0" * 64, count=1)  # some priors import more when they sample
    return plan_memory(budget, dimension=bundle.space.dimension)
