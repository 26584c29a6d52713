"""``secrets``: looks one secret up, for the steps and tasks that follow.

They read ``{{ step.value }}``; in the log the value is masked, and beside it stands the question that
a worker asks again for whoever reads it.
"""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from app.tools import Context, Tool


class Input(BaseModel):
    """``name`` and where it is kept; ``map`` asks for several at once."""

    model_config = ConfigDict(populate_by_name=True)

    name: str | None = Field(
        None,
        validation_alias=AliasChoices("secret", "secret_name", "path", "name"),
        description="The name of the secret, as its provider knows it.",
    )
    provider: str = Field(
        "env", description="Who keeps it: `env`, `file`, `vault`, `gcp`, `aws` or `azure`."
    )
    auth: Any = Field(
        None,
        validation_alias=AliasChoices("auth", "credential"),
        description="The name of the credential that opens the provider.",
    )
    version: str | int | None = Field(None, description="Which version; default: the newest.")
    field: str | None = Field(
        None,
        validation_alias=AliasChoices("field", "key"),
        description="The field of a secret that has several.",
    )
    map: dict[str, Any] | None = Field(
        None, description="Several secrets, by the name of the field that `value` gets."
    )
    project: str | None = Field(None, description="The project, with `gcp`.")
    region: str | None = Field(None, description="The region, with `aws`.")
    service: str | None = Field(
        None, description="`secretsmanager` or `ssm` (the Parameter Store), with `aws`."
    )
    mount: str | None = Field(None, description="Where the engine is mounted, with `vault`.")
    kv_version: int | None = Field(None, description="1 or 2, with `vault`.")
    vault: str | None = Field(None, description="The name of the key vault, with `azure`.")

    @field_validator("provider", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{value, name, provider, _secret}``: the value as text, or data by field."""
    question = request.model_dump(exclude_none=True)
    return {
        "value": context.secrets.external(question),
        "name": request.name,
        "provider": request.provider,
        "_secret": question,
    }


tool = Tool("secrets", input=Input, run=run, queue="io", needs=(("name", "map"),))
