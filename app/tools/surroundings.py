"""What every tool that runs a program takes beside it: environment, folder, credentials, limits."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from app.errors import ToolError
from app.tools import Context
from app.tools.child.keys import Keys, keys_of, variable_name
from app.tools.child.run import Where
from app.tools.sources import EnvInput, as_texts
from app.tools.times import Time, seconds


class Surroundings(BaseModel):
    """The keys that programs have in common."""

    model_config = ConfigDict(populate_by_name=True)

    env: dict[str, str] = Field(default_factory=dict, description="Environment variables.")
    cwd: str | None = Field(None, description="The folder it runs in; else one of its own.")
    auth: Any = Field(
        None,
        validation_alias=AliasChoices("auth", "credential", "credentials"),
        description="The name of a credential, its fields, or several of these by alias.",
    )
    profile: Literal["plain", "jail"] | None = Field(
        None, description="How it is kept in; at least as tight as CALLBOARD_PYTHON_PROFILE."
    )
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )

    _env_texts = field_validator("env", mode="before", json_schema_input_type=EnvInput)(as_texts)

    def seconds(self, context: Context) -> float:
        return seconds(self.timeout, most=context.timeout)

    def keys(self, context: Context) -> Keys:
        return keys_of(self.auth, context)

    def where(self, context: Context, python: str | None = None) -> Where:
        """The kind of process it gets. Raises ``ToolError`` where the interpreter is not there."""
        jailed = "jail" in {self.profile, context.settings.python_profile}
        if python is None:
            return Where(None, jailed)
        found = shutil.which(python)
        if found is None:
            raise ToolError(f"there is no python {python!r} on this worker", kind="not_found")
        return Where(None if found == sys.executable else found, jailed)


class Given(BaseModel):
    """The inputs of a program, by name."""

    input: dict[str, Any] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("input", "args"),
        description="Variables of the program.",
    )

    @field_validator("input", mode="before", json_schema_input_type=dict[str, Any] | None)
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value


class Deps(BaseModel):
    """What a python program needs: folders to import from, and packages that must be there."""

    sys_path: list[str] = Field(default_factory=list, description="Folders to import from first.")
    venv_path: str | None = Field(default=None, description="A virtual environment to import from.")
    packages: list[str] = Field(
        default_factory=list, description="Packages that must be installed; none is downloaded."
    )

    @field_validator(
        "packages",
        mode="before",
        json_schema_input_type=list[str] | dict[str, list[str]] | None,
    )
    @classmethod
    def _all(cls, value: Any) -> Any:
        if isinstance(value, Mapping):  # by tenant
            return [each for group in value.values() for each in group or ()]
        return value or []


def deps_of(value: Any) -> Any:
    """``deps`` as written: a mapping, or a list of packages."""
    return {"packages": value} if isinstance(value, list) else value


def input_variables(values: Mapping[str, Any]) -> dict[str, str]:
    """Inputs as a shell program finds them: ``INPUT_<NAME>``, what is no text as JSON."""
    return {
        f"INPUT_{variable_name(name)}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }
