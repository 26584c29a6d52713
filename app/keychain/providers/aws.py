"""``aws``: Secrets Manager and the Parameter Store of Systems Manager, through botocore.

A credential holds ``aws_access_key_id``, ``aws_secret_access_key`` and perhaps
``aws_session_token``, and a ``region``; without one the worker's own identity is used where that is
allowed. A name that begins with ``/``, or ``service: ssm``, means a parameter.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from app.engine.auth import first
from app.errors import ToolError
from app.keychain.providers import Surroundings, Wanted

_MISSING = {"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"}
_DENIED = {
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException",
    "IncompleteSignature", "InvalidClientTokenId", "InvalidSignatureException",
    "MissingAuthenticationToken", "SignatureDoesNotMatch", "UnrecognizedClientException",
}  # fmt: skip
_BUSY = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


@dataclass(frozen=True, slots=True)
class Amazon:
    """The secrets and parameters of one account and region."""

    session: Any = field(repr=False)
    region: str
    endpoint: str | None
    service: str | None
    patience: float

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        name = wanted.name
        is_parameter = self.service == "ssm" or name.startswith(("/", "arn:aws:ssm:"))
        return self._parameter(wanted) if is_parameter else self._secret(wanted)

    def _secret(self, wanted: Wanted) -> str:
        query = {"SecretId": wanted.name}
        if wanted.version and wanted.version != "latest":
            # Stages have names, versions are UUIDs.
            is_stage = wanted.version.startswith("AWS") or "-" not in wanted.version
            query["VersionStage" if is_stage else "VersionId"] = wanted.version
        answer = self._ask("secretsmanager", "get_secret_value", query, wanted)
        text = answer.get("SecretString")
        if isinstance(text, str):
            return text
        return base64.b64encode(answer.get("SecretBinary") or b"").decode()

    def _parameter(self, wanted: Wanted) -> str:
        latest = wanted.version in {None, "latest"}
        name = wanted.name if latest else f"{wanted.name}:{wanted.version}"
        query = {"Name": name, "WithDecryption": True}
        answer = self._ask("ssm", "get_parameter", query, wanted)
        return str(answer["Parameter"]["Value"])

    def _ask(self, service: str, call: str, query: Mapping[str, Any], wanted: Wanted) -> Any:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(
            connect_timeout=self.patience,
            read_timeout=self.patience,
            retries={"total_max_attempts": 1},
            # An empty mapping is not taken from the environment.
            proxies={},
        )
        try:
            client = self.session.create_client(
                service, region_name=self.region, endpoint_url=self.endpoint, config=config
            )
            with closing(client):
                return getattr(client, call)(**query)
        except ClientError as exc:
            raise _refused(exc, wanted) from None
        except BotoCoreError as exc:
            raise _failed(exc, wanted) from None


@cache
def _loader() -> Any:
    """The descriptions of the services: reading them takes longer than asking."""
    from botocore.loaders import create_loader

    return create_loader()


def _refused(exc: Any, wanted: Wanted) -> ToolError:
    """What AWS said by its code; its own words may quote the request."""
    error = exc.response.get("Error", {})
    code = str(error.get("Code", ""))[:100]
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"AWS answered {status} ({code}) for secret {wanted.name!r}"
    if code in _MISSING or status == 404:
        return ToolError(message, kind="not_found", error_code=code)
    if code in _BUSY or status == 429:
        return ToolError(message, kind="rate_limit", retryable=True, error_code=code)
    if code in _DENIED or status in {401, 403}:
        return ToolError(f"{message}: is the credential right?", kind="auth", error_code=code)
    if status >= 500:
        return ToolError(message, kind="connection", retryable=True, error_code=code)
    return ToolError(message, kind="client_error", error_code=code)


def _failed(exc: Exception, wanted: Wanted) -> ToolError:
    name = type(exc).__name__
    message = f"secret {wanted.name!r} could not be asked for ({name})"
    if name in {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return ToolError(f"{message}: name a credential under 'auth'", kind="auth")
    if "Timeout" in name:
        return ToolError(message, kind="timeout", retryable=True)
    reached = "Connection" in name or "Endpoint" in name or "SSL" in name or "HTTPClient" in name
    return ToolError(message, kind="connection" if reached else "client_error", retryable=reached)


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any], about: Mapping[str, Any], surroundings: Surroundings
) -> Amazon:
    """See ``Provider.open``. Another ``endpoint`` than Amazon's is the credential's."""
    try:
        from botocore.session import Session
    except ImportError:
        raise ToolError(
            "provider 'aws' needs botocore: install 'callboard[aws]' where the worker runs",
            kind="auth",
        ) from None
    session = Session()
    session.register_component("data_loader", _loader())
    key = first(access, "aws_access_key_id", "access_key_id", "access_key")
    secret = first(access, "aws_secret_access_key", "secret_access_key", "secret_key")
    if key and secret:
        session.set_credentials(key, secret, first(access, "aws_session_token", "session_token"))
    elif key or secret:
        raise ToolError(
            "the credential for provider 'aws' needs both 'aws_access_key_id' and "
            "'aws_secret_access_key'",
            kind="auth",
        )
    else:
        surroundings.check_ambient("aws")
    region = first(about, "region") or first(access, "region", "aws_region", "region_name")
    if region is None or not region.replace("-", "").isalnum():
        raise ToolError(
            "provider 'aws' needs a 'region', such as eu-central-1, in the entry or the credential",
            kind="auth",
        )
    return Amazon(
        session=session,
        region=region,
        endpoint=first(access, "endpoint", "endpoint_url"),
        service=first(about, "service"),
        patience=surroundings.web.patience,
    )
