"""From the sections of a run's settings to a method with what it takes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.errors import SettingsError
from fedcert.methods import FederatedSettings, Method, PersonalTraining
from fedcert.settings.sections import AveragingSettings, PersonalSettings

__all__ = ["method_from"]

# What a field of a method takes, by its annotation: in words, and the types.
_SIMPLE = {
    "int": ("a whole number", "int"),
    "float": ("a number", "float", "int"),
    "bool": ("true or false", "bool"),
}


def method_from(
    cls: type[Method],
    training: FinetuneSettings,
    *,
    averaging: AveragingSettings,
    personal: PersonalSettings,
) -> Method:
    """Return a method with its settings; what is left to it follows from how clients train.

    Parameters
    ----------
    cls : type of Method
        The method.
    training : FinetuneSettings
        How upstream clients train.
    averaging, personal
        The sections of these names.

    Returns
    -------
    Method
        The method.

    Raises
    ------
    SettingsError
        If the method does not take its options.
    """
    _check_types(cls, averaging.options)
    try:
        return cls(
            federated=_federated(cls, training, averaging),
            personal=_learning(cls, training, averaging, personal),
            choose_fraction=personal.choose,
            **averaging.options,
        )
    except TypeError as error:
        raise SettingsError(
            f"setting 'averaging.options': the method {cls.kind} does not take them: {error}"
        ) from None


def _check_types(cls: type[Method], options: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for an option that is no number, say, or no whole one."""
    named = {each.name: getattr(each.type, "__name__", each.type) for each in fields(cls)}
    for name, value in options.items():
        wanted, given = named.get(name), type(value).__name__
        if wanted in _SIMPLE and given not in _SIMPLE[wanted][1:]:
            raise SettingsError(
                f"setting 'averaging.options.{name}': the method {cls.kind} takes "
                f"{_SIMPLE[wanted][0]} here, not {value!r}"
            )


def _federated(
    cls: type[Method], training: FinetuneSettings, averaging: AveragingSettings
) -> FederatedSettings:
    return FederatedSettings(
        rounds=averaging.rounds,
        clients_per_round=averaging.clients,
        local=replace(
            training,
            steps=averaging.steps,
            batch_size=averaging.batch_size,
            learning_rate=averaging.learning_rate or training.learning_rate,
        ),
        proximal_mu=averaging.pull if cls.pulls_upstream else 0.0,
        head_steps=averaging.head_steps if cls.own_heads else 0,
    )


def _learning(
    cls: type[Method],
    training: FinetuneSettings,
    averaging: AveragingSettings,
    personal: PersonalSettings,
) -> PersonalTraining:
    usual = averaging.pull if cls.pulls_new else training.weight_decay
    return PersonalTraining(
        settings=replace(
            training,
            steps=personal.steps or training.steps,
            learning_rate=personal.learning_rate or training.learning_rate,
        ),
        proximal_mu=usual if personal.pull < 0 else personal.pull,
        keep=personal.keep,
        head_only=cls.own_heads,
    )
