"""What a node is set up with: its client id, its part, and its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcert.atomic import write_atomically
from fedcert.settings.toml import flat_toml

__all__ = ["NodeSetup"]


@dataclass(frozen=True)
class NodeSetup:
    """One node of a deployment.

    Attributes
    ----------
    client : str
        Its client id, which is also the name of its folder and of its key.
    role : str
        ``"upstream"`` or ``"new"``.
    data : Path
        Its labeled file.
    base_model : Path or None
        Its copy of the base model; by default where the run's settings say.
    others : Mapping[str, str or int or float]
        Further keys of its configuration.
    isolated : bool
        Whether the ClientApp runs apart from the SuperNode, as in a container of its own.
    """

    client: str
    role: str
    data: Path
    base_model: Path | None = None
    others: Mapping[str, str | int | float] = field(default_factory=dict)
    isolated: bool = False

    def write_config(self, folder: Path) -> Path:
        """Write the file for ``flower-supernode --node-config``; return its path.

        A file can hold any path; the command line's key="value" pairs cannot hold all.

        Parameters
        ----------
        folder : Path
            The node's own: it keeps there what has to outlive runs.
        """
        config: dict[str, str | int | float] = {
            "client-id": self.client,
            "role": self.role,
            "data-path": str(self.data.resolve()),
            "output": str(folder.resolve()),
        }
        if self.base_model is not None:
            config["base-model"] = str(self.base_model.resolve())
        path = folder / "node.toml"
        write_atomically(path, flat_toml({**config, **self.others}).encode())
        return path
