"""What models asks of the policies before it acts."""

from counterfoil_chassis.policy import Question

from counterfoil_models.artifact import KIND
from counterfoil_models.entities import ImpactTier, Model

SCOPE = "models.write"
"""The scope of every method that asks."""

_TIERS = {ImpactTier.LOW: 1, ImpactTier.MEDIUM: 2, ImpactTier.HIGH: 3}


def train_question(model: Model) -> Question:
    """May the caller train a version of this model?"""
    return _model_question("train", model)


def forecast_question(model: Model) -> Question:
    """May the caller have this model forecast?"""
    return _model_question("forecast", model)


def promote_question(model: Model, *, approved: bool) -> Question:
    """May the caller have a version of this model serve, with or without a second person's approval of just that?"""
    return _model_question("promote", model, approved=approved)


def use_question(dataset: str, *, purpose: str, people: int = 0, without_consent: int = 0) -> Question:
    """May the caller use a dataset for a purpose?

    `people` have consented to it, those without consent are left out; a dataset of which neither is known tells of no
    person.
    """
    return Question(
        action="use",
        resource_type="Dataset",
        resource_id=dataset,
        context={
            "scope": SCOPE,
            "purpose": purpose,
            "personal": people + without_consent > 0,
            "people": people,
            "without_consent": without_consent,
        },
    )


def _model_question(action: str, model: Model, **context: bool) -> Question:
    return Question(
        action=action,
        resource_type="Model",
        resource_id=model.model_id,
        attributes={
            "kind": KIND,
            "impact_tier": _TIERS[model.impact_tier],
            "purpose": model.purpose,
            "created_by": model.created_by,
        },
        context={"scope": SCOPE, **context},
    )
