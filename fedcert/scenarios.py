"""Scenarios: where data, tasks and a base model come from.

The library knows only this interface; implementations live in
``fedcert.simulations.scenarios`` (one file each) or in a user's own module.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    import torch

    from fedcert.models.base import BaseModel

__all__ = [
    "Scenario",
    "absolute_options",
    "load_scenario",
    "option_names",
    "scenario_defaults",
]

_PACKAGE = "fedcert.simulations.scenarios"
# By the annotation of an option, as written: others are not checked.
_KINDS: Mapping[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
}


class Scenario(ABC):
    """Data, tasks and base model of one federation.

    The arguments of its constructor are its options. Where an argument's default is a frozen
    dataclass, that is a group of options: one for each field.

    Every method gives the same answer for the same constructor arguments. The examples of
    pretraining, upstream training, support and test must be disjoint: a certificate on an
    example that anything else depended on would not hold.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings that suit this scenario, by section; a run's own settings win."""
    duplicates_are_real: bool = False
    """Whether inputs that occur more than once in a support set were drawn more than once:
    true of data that are drawn with replacement, or repeat themselves by nature."""
    paths: ClassVar[frozenset[str]] = frozenset({"base", "data", "source"})
    """Options that name a file or folder, or something else that none has the name of. A
    relative path is that of the process that a run was started in: workers have others."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, by index; empty where each client has its own."""

    def labels_of(self, client: str) -> tuple[str, ...]:
        """Return the names of a client's classes, by index; unless it says so, the common ones.

        They are known before the client's examples are looked at.
        """
        return self.labels

    @property
    @abstractmethod
    def inputs(self) -> InputSpec:
        """What an input looks like and how it is encoded."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the data: what was left out, say, and why."""
        return ()

    @property
    @abstractmethod
    def upstream_clients(self) -> tuple[str, ...]:
        """Ids of the clients that train adapters; an id is stable across runs."""

    @property
    def planning_clients(self) -> tuple[str, ...]:
        """Ids of the upstream clients that plan before any other does; none unless it says so.

        What a plan promises is what they get, so their tasks should be as strange to the
        other upstream clients as those of new clients are.
        """
        return ()

    @property
    @abstractmethod
    def new_clients(self) -> tuple[str, ...]:
        """Ids of the clients that personalize; disjoint from the upstream ones."""

    @abstractmethod
    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the folder of the base model, making it first if need be.

        Parameters
        ----------
        on_step : callable
            Called with a few words about what is being done, when it takes time.
        """

    def load_base(
        self,
        folder: Path | None = None,
        *,
        device: torch.device | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> BaseModel:
        """Load the base model, for this scenario's labels in their order.

        Parameters
        ----------
        folder : Path, optional
            Where it is, if it is another one than `base_model` makes: after a warm start, say.
        device : torch.device, optional
            Where its weights go; by default they stay on the CPU.
        on_step : callable
            As in `base_model`.

        Returns
        -------
        BaseModel
            The model.

        Raises
        ------
        ModelError
            If it does not fit the labels.
        """
        from fedcert.models.base import load_base_model  # reading data takes no torch

        found = folder or self.base_model(on_step=on_step)
        count = len(self.labels)
        return load_base_model(str(found), num_labels=count, labels=self.labels, device=device)

    @abstractmethod
    def training_examples(self, client: str) -> Examples:
        """Return what an upstream client trains on."""

    @abstractmethod
    def support_examples(self, client: str, size: int) -> Examples:
        """Return a new client's support set, an i.i.d. sample of its own distribution.

        Support sets nest: the first m of n examples are the set of size m.
        """

    @abstractmethod
    def test_examples(self, client: str) -> Examples | None:
        """Return examples for measuring the true error, or None where there are none."""

    def unlabeled_inputs(self, client: str) -> Examples | None:
        """Return inputs of a new client that nobody labeled, or None where there are none.

        A method that reads inputs reads them beside the choosing ones. They come from the
        same distribution, and none of them is an observation of the support set; their labels
        are not looked at.
        """
        return None

    def reference_examples(self) -> Examples | None:
        """Return a public sample of what all clients meet, that nothing else may use.

        None, unless the scenario says otherwise: where labels mean something else to each
        client there is no such sample. It carries labels of `labels`.
        """
        return None


def load_scenario(name: str, options: Mapping[str, Any]) -> Scenario:
    """Build a scenario by name.

    Parameters
    ----------
    name : str
        A file of ``fedcert.simulations.scenarios`` (``"digits"``), or ``"module:Class"``
        for a user's own.
    options : Mapping[str, Any]
        Keyword arguments of its constructor.

    Raises
    ------
    SettingsError
        If there is no such scenario, or an option does not fit it.
    """
    scenario = _find_class(name)
    parameters = inspect.signature(scenario).parameters.values()
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    known = option_names(scenario)
    for option in options if not takes_any else ():
        if option not in known:
            raise SettingsError(
                f"scenario {name!r} does not take these options: it has no option {option!r}, "
                f"but {', '.join(sorted(known)) or 'none at all'}"
                f"{did_you_mean(option, known)}"
            )
    _check_kinds(name, option_kinds(scenario), options)
    groups: dict[str, Any] = {p.name: p.default for p in parameters if is_dataclass(p.default)}
    alone = dict(options)
    try:
        for argument, group in groups.items():
            names = [field.name for field in fields(group) if field.name in options]
            groups[argument] = replace(group, **{name: alone.pop(name) for name in names})
        return scenario(**alone, **groups)
    except TypeError as error:
        reason = str(error).replace(f"{scenario.__name__}.__init__() ", "")
        raise SettingsError(
            f"scenario {name!r} does not take these options: {reason}"
        ) from error


def option_names(scenario: type[Scenario]) -> list[str]:
    """Return the names of a scenario's options."""
    return [*option_kinds(scenario)]


def option_kinds(scenario: type[Scenario]) -> dict[str, str]:
    """Return what a scenario's options are annotated with, as written, by their names."""
    found: dict[str, str] = {}
    for name, parameter in inspect.signature(scenario).parameters.items():
        group = parameter.default
        annotated = (
            {field.name: field.type for field in fields(group)}
            if is_dataclass(group)
            else {name: parameter.annotation}
        )
        found |= {
            option: getattr(kind, "__name__", str(kind)) for option, kind in annotated.items()
        }
    return found


def _check_kinds(name: str, kinds: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for a number that is none, or no whole one."""
    for option, value in options.items():
        kind = kinds.get(option, "")
        if kind not in _KINDS:
            continue
        wanted, words = _KINDS[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
            raise SettingsError(
                f"scenario {name!r}: the option {option!r} must be {words}, not {value!r}"
            )


def absolute_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario's options with absolute paths, where there is such a file or folder.

    Parameters
    ----------
    name, options
        As in `load_scenario`.

    Raises
    ------
    SettingsError
        If there is no such scenario.
    """
    found = dict(options)
    for option in _find_class(name).paths & options.keys():
        if isinstance(options[option], str) and options[option]:
            path = Path(options[option]).expanduser()
            # What is no path may be the name of a hub model; or of nothing, as is said later.
            found[option] = str(path.absolute()) if path.exists() else options[option]
    return found


def scenario_defaults(name: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings that suit a scenario, by section.

    Raises
    ------
    SettingsError
        If there is no such scenario.
    """
    return _find_class(name).defaults


def _find_class(name: str) -> type[Scenario]:
    module_name, _, attribute = name.partition(":")
    if not attribute:
        module_name = f"{_PACKAGE}.{name.replace('-', '_')}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise SettingsError(
                f"scenario {name!r} needs the package {error.name!r}; install it, "
                "for instance with pip install 'fedcert[simulation]'"
            ) from error
        if attribute:
            raise SettingsError(
                f"there is no scenario {name!r}: Python finds no module {error.name!r}; put "
                "its folder on the import path, with export PYTHONPATH=/path/to/folder"
            ) from error
        there = _built_in()
        raise SettingsError(
            f"there is no scenario {name!r}; there is {', '.join(there)}, or your own as "
            f"module:Class{did_you_mean(name, there)}"
        ) from error
    return _class_in(module, attribute, name)


def _class_in(module: ModuleType, wanted: str, name: str) -> type[Scenario]:
    """Return the scenario class of a module with a name, or the only one there is."""
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Scenario)
        and value.__module__ == module.__name__
    }
    if wanted in found:
        return found[wanted]
    if len(found) == 1 and not wanted:
        return next(iter(found.values()))
    if not found:
        raise SettingsError(
            f"there is no scenario {name!r}: the module {module.__name__} defines no class "
            "derived from fedcert.scenarios.Scenario"
        )
    choice = ", ".join(f"{module.__name__}:{key}" for key in found)
    if not wanted:
        raise SettingsError(f"the module {module.__name__} has several; name one of {choice}")
    raise SettingsError(
        f"there is no scenario {name!r}; the module has {choice}{did_you_mean(wanted, found)}"
    )


def _built_in() -> list[str]:
    """Return the names of the scenarios that come with fedcert."""
    package = importlib.import_module(_PACKAGE)
    names = (module.name for module in iter_modules(package.__path__))
    # A helper's name has the one of the scenario that it helps in front.
    return sorted(name.replace("_", "-") for name in names if not name.endswith("_base"))
