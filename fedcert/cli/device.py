"""``fedcert personalize``: what a device runs, and what its other commands share with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cache import state_folder
from fedcert.cli.console import say
from fedcert.errors import BundleError, ProtocolError, SettingsError
from fedcert.reports.formats import decimal_up

if TYPE_CHECKING:
    from fedcert.bundles import Bundle
    from fedcert.data import Examples
    from fedcert.personalization.memory import MemoryPlan

__all__ = [
    "Base",
    "BundleDigest",
    "BundlePath",
    "DataPath",
    "Device",
    "DuplicatesAreReal",
    "InputColumn",
    "Key",
    "LabelColumn",
    "Labels",
    "RepeatsAreNew",
    "ServerKey",
    "State",
    "UnlabeledPath",
    "base_name",
    "default_state",
    "key_path",
    "load_bundle",
    "own_labels",
    "personalize",
    "read_labeled",
    "read_unlabeled",
]

_KEY = "fedcert.key"
_NODE_KEY = "client.key"

Base = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        help="Folder or hub id of the base model; by default `base-model` beside the bundle, "
        "if it is there, or the bundle's own hub id.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (a GPU, if there is one), cpu, cuda, cuda:1, or mps."
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Your state folder: what you have spent and committed to. Keep it; by default "
        "beside the key, with the ending .state, or a node's folder state."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        help="Your signing key; made, readable by you alone, if missing. By default "
        "fedcert.key in your own state folder, wherever you are."
    ),
]
DuplicatesAreReal = Annotated[
    bool,
    typer.Option(
        "--duplicates-are-real",
        help="You state that inputs which occur more than once were drawn more than once, and "
        "none was copied.",
    ),
]
RepeatsAreNew = Annotated[
    bool,
    typer.Option(
        "--repeats-are-new",
        help="You state that inputs which you have spent came up again in a new random sample.",
    ),
]
DataPath = Annotated[
    Path, typer.Argument(help="Labeled examples: .csv, .jsonl, .npz, or .parquet.")
]
BundlePath = Annotated[
    Path, typer.Option("--bundle", "-b", help="The federation's bundle: a folder or archive.")
]
BundleDigest = Annotated[
    str | None,
    typer.Option(help="The bundle that you expect, 64 hexadecimal digits."),
]
ServerKey = Annotated[
    str | None,
    typer.Option(help="The server that you expect, 64 hexadecimal digits."),
]
InputColumn = Annotated[str, typer.Option(help="Column or key of the inputs.")]
LabelColumn = Annotated[str, typer.Option(help="Column or key of the labels.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Your own labels, where the bundle leaves them to you: a text file, one name a "
        "line, all that can occur; after a tab a description, if you like.",
    ),
]
UnlabeledPath = Annotated[
    Path | None,
    typer.Option(
        "--unlabeled",
        help="Inputs without labels, from the same source as the examples and none of these, "
        "for bundles of methods that read inputs; a file as of examples.",
    ),
]


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
    if server_key is not None and (grant is None or grant.receipt.server != server_key.lower()):
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
    result = run(
        loaded,
        model,
        examples,
        client=client,
        key=signer,
        folder=output,
        state=DeviceState(state or default_state(file)),
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


def load_bundle(path: Path, digest: str | None) -> Bundle:
    """Load a bundle, and make sure that it is the one that the user expects, if any.

    Raises
    ------
    BundleError
        If it is damaged, or another one.
    """
    from fedcert.bundles import Bundle

    loaded = Bundle.load(path)
    if digest is not None and loaded.digest != digest.lower():
        raise BundleError(
            f"{path} is the bundle {loaded.digest}, not the expected {digest}; get it again "
            "from your federation"
        )
    return loaded


def _divided(budget: float, bundle: Bundle) -> MemoryPlan:
    """Plan the memory once everything that the work needs is in it."""
    import peft  # noqa: F401

    from fedcert.personalization.memory import plan_memory

    bundle.prior.sample("0" * 64, count=1)  # some priors import more when they sample
    return plan_memory(budget, dimension=bundle.space.dimension)


def key_path(given: Path | None) -> Path:
    """Return where the signing key is: as given, or in the user's own folder.

    A key that followed the working directory would bring a ledger that knows nothing into
    every new one, and then the same examples could certify twice.

    Raises
    ------
    SettingsError
        If there is a key from before in the working directory.
    """
    default = state_folder() / _KEY
    old = Path(_KEY)
    if given is not None or not old.exists() or (default.exists() and old.samefile(default)):
        return given or default
    folder = shlex.quote(str(default.parent))
    raise SettingsError(
        f"there is a key ./{_KEY} from before keys were kept in {default.parent}, wherever you "
        f"are: go on with it by --key {_KEY}, or move it with its ledger once: "
        f"mkdir -p {folder} && mv {_KEY} {default_state(old)} {folder}"
    )


def default_state(key: Path) -> Path:
    """Return the state folder that belongs to a key.

    A node of a deployment keeps its ledger in ``state`` beside ``client.key``, and what it
    trained on is spent for the commands as well.

    Raises
    ------
    SettingsError
        If there are two, each of which knows what the other does not.
    """
    from fedcert.protocol.uses import LEDGER_FILE  # needs NumPy

    own, node = key.with_suffix(".state"), key.parent / "state"
    if key.name != _NODE_KEY or not (node / LEDGER_FILE).is_file():
        return own
    if own.exists():
        raise SettingsError(
            f"the key {key} has two ledgers of spent examples: {own} knows what commands "
            f"committed to and certified, {node} what the node trained on and certified. Name "
            "one with --state: the node's for examples that the node may have used; the other "
            "to go on with what was committed to there"
        )
    return node


def base_name(bundle: Path, given: str | None) -> str | None:
    """Return where the base model is: as given, or beside the bundle."""
    from fedcert.bundles.versions import VERSIONS

    parent = bundle.resolve().parent
    beside = (parent.parent if parent.name == VERSIONS else parent) / "base-model"
    return given or (str(beside) if beside.is_dir() else None)


def own_labels(
    bundle: Bundle, path: Path | None
) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Return names and descriptions of a client's own labels, if the bundle leaves them to it.

    They come from a file of their own, not from the column: what happens to be in a sample is
    no list of what can occur, and errors on the rest would not count.

    Raises
    ------
    SettingsError
        If there are none, or they are the bundle's.
    """
    from fedcert.label_set import read_labels

    if bundle.takes_labels and path is None:
        raise SettingsError(
            "the bundle leaves the labels to you: give --labels labels.txt with the name of "
            "every label that can occur, one a line"
        )
    if path is not None and not bundle.takes_labels:
        raise SettingsError(
            f"the labels are the bundle's: {', '.join(bundle.labels)}; leave out --labels"
        )
    return (None, {}) if path is None else read_labels(path)


def read_labeled(
    data: Path,
    bundle: Bundle,
    input_column: str,
    label_column: str,
    *,
    labels: Sequence[str] | None = None,
    beside: str | None = None,
) -> Examples:
    """Read a user's examples as the bundle's task has them; say what counts as an error.

    Parameters
    ----------
    data : Path
        The user's table.
    bundle : Bundle
        Says what an input and a label are.
    input_column : str
        Name of the column of inputs.
    label_column : str
        Name of the column of labels.
    labels : sequence of str, optional
        The client's own, if the bundle leaves them to clients.
    beside : str, optional
        A column of the table that is no part of an input.

    Returns
    -------
    fedcert.data.Examples
        As many examples as the table has rows.
    """
    from fedcert.data import read_examples

    return read_examples(
        data,
        spec=bundle.inputs,
        labels=labels or bundle.labels,
        input_column=input_column,
        label_column=label_column,
        without=() if beside is None else (beside,),
        warn=_warn,
    )


def read_unlabeled(
    data: Path | None, bundle: Bundle, input_column: str, label_column: str
) -> Examples | None:
    """Read a user's inputs without labels, if a file is given, as the bundle's task has them.

    Parameters
    ----------
    data : Path or None
        The user's table.
    bundle : Bundle
        Says what an input is.
    input_column, label_column : str
        Names of the columns; labels in the file are not looked at.

    Returns
    -------
    fedcert.data.Examples or None
        As many as the table has rows.
    """
    from fedcert.data import read_unlabeled as read

    if data is None:
        return None
    return read(
        data,
        spec=bundle.inputs,
        input_column=input_column,
        label_column=label_column,
        warn=_warn,
    )


def _warn(text: str) -> None:
    from rich.console import Console

    from fedcert.cli.endings import print_line

    print_line(Console(stderr=True), f"WARNING: {text}")
