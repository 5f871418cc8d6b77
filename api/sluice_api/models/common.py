"""What the four kinds share: conditions, label selectors, and how a rule of the API server is attached to a model.

Invariants: the models describe what a user writes and reads, and nothing is checked here that the API server cannot
check too: the rules are CEL, and the same text is in the CRD. Must not import any program.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sluice_api.reasons import ConditionType, Reason


def rule(expression: str, message: str, *, path: str | None = None) -> dict[str, str]:
    """A CEL rule: `expression` must hold, or the API server refuses the object with `message`."""
    return {"rule": expression, "message": message} | ({"fieldPath": path} if path else {})


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """The rules of a field or a model, as the extra keys of its schema."""
    return {"x-kubernetes-validations": list(entries)}


class Model(BaseModel):
    """A part of a spec or a status; unknown fields are refused, as kubectl does.

    The programs read what the API server has without these models, and tolerantly: an older program must live with the
    objects of a newer one.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


#: Syntax of labels (apimachinery, IsQualifiedName and IsValidLabelValue): what breaks it, no object can ever have.
_KEY = (
    "matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    "([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$')"
)
_KEY_REMEDY = (
    "not the key of a label: write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter "
    "or digit, after a DNS name and '/' if it has one"
)
Label = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=rules(
            rule(
                "self.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')",
                "not the value of a label: write letters, digits, '-', '_' and '.', beginning and ending with a letter "
                "or digit",
            )
        ),
    ),
]
LabelKey = Annotated[str, Field(max_length=317, json_schema_extra=rules(rule(f"self.{_KEY}", _KEY_REMEDY)))]
LABEL_KEYS = rules(rule(f"self.all(k, k.{_KEY})", _KEY_REMEDY))
"""For a map whose keys are those of labels: a schema says nothing of a map's keys."""


class Requirement(Model):
    """One expression of a label selector."""

    key: LabelKey = Field(min_length=1, description="The label that the expression is about.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In, NotIn (with values), Exists or DoesNotExist (without)."
    )
    values: list[Label] | None = Field(default=None, max_length=64, description="Values for In and NotIn.")

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : "
                "!has(self.values) || size(self.values) == 0",
                "In and NotIn need values, Exists and DoesNotExist take none: correct values or operator",
            )
        )
    )


class Selector(Model):
    """A label selector; all it says must hold. To select everything, write `matchLabels: {}`.

    An empty selector is refused: the API server drops a misspelt key ("matchLabel") for clients without strict
    validation, and what is left of it would select everything.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.matchLabels) || has(self.matchExpressions) && size(self.matchExpressions) > 0",
                "a selector needs matchLabels or matchExpressions (a misspelt key counts as none); "
                "to select everything write matchLabels: {}",
            )
        )
    )

    match_labels: dict[LabelKey, Label] | None = Field(
        default=None,
        alias="matchLabels",
        max_length=64,
        description="Labels that must have these values.",
        json_schema_extra=LABEL_KEYS,
    )
    match_expressions: list[Requirement] | None = Field(
        default=None, alias="matchExpressions", max_length=32, description="Expressions that must all hold."
    )


class Condition(Model):
    """One aspect of how the object is."""

    type: str = Field(max_length=64, description="What the condition speaks of; docs/reasons.md lists them all.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(min_length=1, max_length=64, description="One word for why; docs/reasons.md lists them all.")
    message: str = Field(default="", max_length=32768, description="What is wrong, with what, and what to do.")
    last_transition_time: str = Field(
        alias="lastTransitionTime", description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(
        default=0,
        alias="observedGeneration",
        description="The generation of the object that this condition speaks of.",
        json_schema_extra={"format": "int64"},
    )


def pending(*types: ConditionType, writer: str) -> Any:
    """The conditions of an object that its writer has not looked at yet, so that a dead one is visible."""
    return [
        {
            "type": str(kind),
            "status": "Unknown",
            "reason": str(Reason.PENDING),
            "message": f"waiting for {writer}",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
        for kind in types
    ]


def conditions(*types: ConditionType, writer: str = "the operator") -> Any:
    """The field `conditions` of a status."""
    return Field(
        default_factory=list,
        max_length=8,
        description=f"{', '.join(types)}: how it is, and why.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "default": pending(*types, writer=writer),
        },
    )


def counter(description: str, **extra: Any) -> Any:
    """A number that is counted, from 0."""
    return Field(default=0, ge=0, description=description, json_schema_extra={"format": "int64"}, **extra)
