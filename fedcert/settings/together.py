"""What sections of a run's settings must not say together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedcert.certificates import DefaultRecipe
from fedcert.errors import SettingsError
from fedcert.methods import METHODS
from fedcert.settings.recipes import method_recipes, recipe_table
from fedcert.settings.sections import SMALLEST_FIT
from fedcert.settings.toml import toml_of

if TYPE_CHECKING:
    from fedcert.settings.run import RunSettings

__all__ = ["check_together"]


def check_together(settings: RunSettings) -> None:
    """Check what no section knows alone.

    Raises
    ------
    SettingsError
        Naming the key that does not go with another, and what to choose.
    CertificateError
        If the recipe table cannot be.
    """
    recipe_table(settings)
    for check in (
        _check_min_pool,
        _check_federated,
        _check_planning,
        _check_method,
        _check_central,
        _check_warm_start,
        _check_tied,
    ):
        check(settings)


def _check_planning(settings: RunSettings) -> None:
    """Raise `SettingsError` where clients that plan or tune would reveal more than others."""
    if settings.planned and settings.federated_prior:
        raise SettingsError(
            "setting 'certificate.recipe': 'planned' does not go with prior.training = "
            "'federated'; name a recipe"
        )
    if settings.planned and settings.privacy.epsilon > 0:
        raise SettingsError(
            "setting 'certificate.recipe': planning clients answer without noise, so "
            "'planned' does not go with privacy.epsilon > 0; name a recipe"
        )
    if settings.training.tuned and settings.privacy.epsilon > 0:
        raise SettingsError(
            "setting 'training.tuned': a few clients tell their losses without noise, so it "
            "does not go with privacy.epsilon > 0; choose false"
        )


def _check_method(settings: RunSettings) -> None:
    """Raise `SettingsError` for a promise that methods with rounds cannot make."""
    method_recipes(settings, settings.method_of())
    if METHODS[settings.method].asks == "rounds" and settings.privacy.epsilon > 0:
        raise SettingsError(
            f"setting 'privacy.epsilon': the method {settings.method} adds no noise and can "
            'make no such promise; choose method = "prior"'
        )


def _check_central(settings: RunSettings) -> None:
    """Raise `SettingsError` where more than a noised mean would be published."""
    if not settings.privacy.central_epsilon:
        return
    wrong: dict[str, tuple[Any, Any]] = {
        "method": (settings.method, "prior"),
        "certificate.recipe": (settings.certificate.recipe, DefaultRecipe.kind),
        "prior.training": (settings.prior.training, "pooled"),
        "prior.keep": (settings.prior.keep, 0.0),
        # A few clients' losses choose the rate, which the bundle's settings tell.
        "training.tuned": (settings.training.tuned, False),
        "privacy.epsilon": (settings.privacy.epsilon, 0.0),
    }
    for key, (value, needed) in wrong.items():
        if value != needed:
            raise SettingsError(
                f"setting 'privacy.central_epsilon': the bundle then holds a noised mean "
                f"and nothing else of the uploads, which does not go with {key} = "
                f"{toml_of(value)}; choose {toml_of(needed)}"
            )


def _check_warm_start(settings: RunSettings) -> None:
    """Raise `SettingsError` where the trunk would reveal more than is promised."""
    warm = settings.warm_start
    if not warm.rounds:
        if warm.epsilon:
            raise SettingsError(
                "setting 'warm_start.epsilon': it is the promise of a warm start's rounds, and "
                "there are none; set warm_start.rounds, or leave epsilon at 0 (uploads have "
                "privacy.epsilon)"
            )
        return
    if settings.privacy.epsilon > 0:
        raise SettingsError(
            "setting 'warm_start.rounds': clients send how far they moved the trunk without "
            "noise of their own, so a warm start does not go with privacy.epsilon > 0; set it "
            "to 0"
        )
    if settings.privacy.central_epsilon > 0 and not warm.epsilon:
        raise SettingsError(
            "setting 'warm_start.rounds': the new base model would be published without noise, "
            "which does not go with privacy.central_epsilon > 0; set warm_start.epsilon as well"
        )
    if not warm.epsilon:
        return
    if warm.weights != "equal":
        raise SettingsError(
            "setting 'warm_start.epsilon': the noise hides a client that counts as much as "
            "every other, which does not go with warm_start.weights = "
            f'{toml_of(warm.weights)}; choose "equal"'
        )
    if settings.training.tuned:
        raise SettingsError(
            "setting 'warm_start.epsilon': the loss of a few clients chooses the learning rate "
            "without noise, so it does not go with training.tuned = true; choose false"
        )
    _check_budget(settings)


def _check_tied(settings: RunSettings) -> None:
    """Raise `SettingsError` for plain LoRA, of which tied modules keep next to nothing."""
    if settings.adapter.tied and settings.training.lora_ranks:
        raise SettingsError(
            "setting 'adapter.tied': what clients train as plain LoRA hardly fits into "
            f"{settings.adapter.tied} numbers that all modules share, so it does not go with "
            f"training.lora_ranks = {toml_of(settings.training.lora_ranks)}; leave that empty, "
            "or set adapter.tied to 0"
        )


def _check_budget(settings: RunSettings) -> None:
    """Raise `SettingsError` where base model and default adapter cannot both be published."""
    from fedcert.privacy import epsilon_of, mu_of
    from fedcert.privacy.gaussian import composed

    privacy = settings.privacy
    epsilons = [e for e in (settings.warm_start.epsilon, privacy.central_epsilon) if e]
    mu = composed(*(mu_of(epsilon, privacy.delta) for epsilon in epsilons))
    together = epsilon_of(mu, privacy.delta)
    if 0 < privacy.budget < together * (1 - 1e-6):
        raise SettingsError(
            "setting 'privacy.budget': what is published about one client has an epsilon of "
            f"{together:.4g}, the warm start and a noised default adapter together, and the "
            f"budget is {privacy.budget:g}; raise it, or lower warm_start.epsilon"
        )


def _check_min_pool(settings: RunSettings) -> None:
    """Raise `SettingsError` if the audit can leave too few adapters for the fit."""
    smallest = settings.server.min_pool
    if settings.method != "prior":
        return
    if not smallest:  # then the Gaussian takes the place of a prior that needs more
        return
    held = settings.prior.held_out(smallest)
    if settings.prior.kind == "diffusion" and smallest - held < SMALLEST_FIT:
        raise SettingsError(
            f"setting 'server.min_pool': of {smallest} adapters the audit holds {held} "
            f"back, and {smallest - held} are too few for the diffusion prior; it needs "
            f"{SMALLEST_FIT}"
        )


def _check_federated(settings: RunSettings) -> None:
    """Raise `SettingsError` if the federated prior is asked for what it cannot do."""
    if not settings.federated_prior:
        return
    if settings.prior.kind != "diffusion":
        raise SettingsError(
            f"setting 'prior.training': the {settings.prior.kind} prior cannot be trained "
            'federated; choose prior.kind = "diffusion"'
        )
    if settings.prior.keep:
        raise SettingsError(
            "setting 'prior.keep': the federated prior has no adapters to average; choose "
            'prior.training = "pooled"'
        )
    if settings.privacy.epsilon > 0:
        raise SettingsError(
            "setting 'privacy.epsilon': the federated prior adds no noise and can make no "
            'such promise; pool noisy uploads (prior.training = "pooled") instead'
        )
