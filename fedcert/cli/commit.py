"""``fedcert commit``: what a device does before it may know its seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    DuplicatesAreReal,
    InputColumn,
    Key,
    LabelColumn,
    Labels,
    RepeatsAreNew,
    State,
    UnlabeledPath,
)
from fedcert.cli.outputs import check_output
from fedcert.protocol.ledgers import state_of

__all__ = ["commit"]


def commit(
    data: DataPath,
    bundle: BundlePath,
    client: Annotated[str, typer.Option(help="Your stable id, as the server knows it.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The commitment, for the server.")
    ] = Path("commitment.json"),
    key: Key = None,
    bundle_digest: BundleDigest = None,
    state: State = None,
    retry: Annotated[
        bool,
        typer.Option(help="Another attempt with the same examples, at a smaller delta."),
    ] = False,
    duplicates_are_real: DuplicatesAreReal = False,
    repeats_are_new: RepeatsAreNew = False,
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    labels: Labels = None,
    unlabeled: UnlabeledPath = None,
    base_model: Base = None,
) -> None:
    """Commit to labeled examples, and spend them; send the result to the server.

    The commitment reveals no example. The salts that open it stay in your state folder: keep
    that. Committing again to the same examples gives the same commitment, and so the same
    seed.
    """
    from fedcert.certificates import check_client
    from fedcert.personalization import commit_to
    from fedcert.protocol.commitment import Commitment
    from fedcert.protocol.device import DeviceState
    from fedcert.records.signing import read_or_create_key

    check_client(client)
    check_output(output, data, unlabeled, labels, kind="a commitment", reads=Commitment.read)
    place = key_path(key)
    loaded = load_bundle(bundle, bundle_digest)
    names, descriptions = own_labels(loaded, labels)
    examples = read_labeled(data, loaded, input_column, label_column, labels=names)
    own = None
    if names is not None:
        # The base model knows the words around a name, and whether it can embed it.
        base = loaded.load_base(base_name(bundle, base_model))
        own = loaded.task(base, labels=names, descriptions=descriptions).label_set
    commitment = commit_to(
        loaded,
        examples,
        client=client,
        key=read_or_create_key(place),
        state=DeviceState(state or state_of(place)),
        retry=retry,
        duplicates_are_real=duplicates_are_real,
        repeats_are_new=repeats_are_new,
        labels=own,
        unlabeled=read_unlabeled(unlabeled, loaded, input_column, label_column),
    )
    commitment.write(output)
    say(f"commitment: {output} (root {commitment.root[:16]}, {len(examples)} examples)")
