"""What a worker's attempts are told in confidence, and the masks that keep it out of what they report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import orjson

from app.actors.fetching import Asker
from app.actors.secrets import answered, revealed
from app.actors.tokens import Held, HeldTokens, SharedTokens
from app.engine.credentials import Credential, parsed
from app.engine.masking import Masker
from app.errors import CallboardError, ToolError
from app.keychain.chain import Keychain
from app.keychain.providers import Surroundings
from app.keychain.secrets import Means, asked, concealed
from app.keychain.web import Web
from app.services.work import Worked
from app.settings import Settings
from app.tools.web.policy import policy_of
from app.wire import KeychainPlan, Resume, SecretRequest, Variables

#: Seconds that a credential is used again without asking: as long may one that was revoked live on.
KEPT = 30.0


def _nobody(*_values: str) -> None:
    """Where no log is written."""


@dataclass(slots=True)
class Vaults:
    """Credentials by name: those of the worker's own environment first, then the control plane's.

    One per process. *environment* has lower-case names; *on_secret* hears of every value handed out.
    """

    work: Worked
    worker: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    on_secret: Callable[..., None] = _nobody
    settings: Settings = field(default_factory=Settings, repr=False)
    held: HeldTokens = field(default_factory=HeldTokens, repr=False)
    _kept: dict[tuple[str, str], tuple[float, Credential]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def opened(self, asker: Asker, playbook: str) -> Vault:
        """The vault of one attempt. *playbook* (its catalog id) says whose credentials are kept."""
        return Vault(self, asker, playbook)

    def credential(self, asker: Asker, playbook: str, name: str) -> Credential:
        own = self.environment.get(name.lower())
        if own is not None:
            return Credential(name, "", parsed(own))
        now = time.monotonic()
        with self._lock:
            at, kept = self._kept.get((playbook, name), (0.0, None))
        if kept is not None and now - at < KEPT:
            return kept
        answer = self._asked(asker, name)
        with self._lock:
            self._kept = {key: each for key, each in self._kept.items() if now - each[0] < KEPT}
            self._kept[playbook, name] = (now, answer)
        return answer

    def _asked(self, asker: Asker, name: str) -> Credential:
        request = SecretRequest(**asker.pointer._asdict(), worker=self.worker, name=name)
        try:
            answer = asker.insist(f"credential {name!r}", lambda: self.work.secret(request))
        except ToolError:
            raise  # stopped, or late
        except CallboardError as exc:
            # It is not there, not for us, or sealed with a key that the server lacks.
            raise ToolError(str(exc), kind="auth") from exc
        return Credential(answer.name, answer.type, answer.data)


@dataclass(slots=True)
class Vault:
    """The secrets of one attempt (see ``tools.Secrets``). ``masker`` knows all that was handed out."""

    vaults: Vaults
    asker: Asker
    playbook: str
    masker: Masker = field(default_factory=Masker)

    def credential(self, name: str) -> Credential:
        found = self.vaults.credential(self.asker, self.playbook, name)
        self.conceal(*found.secrets())
        return found

    def variable(self, name: str) -> str:
        found = self.vaults.environment.get(name.lower())
        if found is None:
            raise ToolError(
                f"no secret named {name!r} is configured; set NOETL_SECRET_{name.upper()}",
                kind="auth",
            )
        self.conceal(*Credential(name, "", parsed(found)).secrets())
        return found

    def conceal(self, *values: str) -> None:
        self.masker.add(*values)
        self.vaults.on_secret(*values)

    def external(self, about: Mapping[str, Any]) -> Any:
        """What a provider keeps; the same question of one execution is asked once in a while."""
        means = self._means()

        def fetch() -> Held:
            value = asked(about, means)
            end = time.monotonic() + KEPT
            return Held({"value": value}, end, end)

        # By its digest: what is asked may hold what opens the provider.
        text = orjson.dumps(dict(about), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        mark = blake2b(text, digest_size=16).digest()
        key = ("external", self.asker.pointer.execution_id, mark)
        value = self.vaults.held.one(key, self.asker, fetch).fields["value"]
        parts = value.values() if about.get("map") else [value]
        self.conceal(*(text for part in parts for text in concealed(part)))
        return value

    def keychain(self, plan: KeychainPlan | None) -> Keychain:
        """``keychain`` as templates read it; without a plan it has no entries."""
        plan = plan or KeychainPlan(entries=[])
        vaults = self.vaults
        keeping = SharedTokens(
            work=vaults.work,
            worker=vaults.worker,
            asker=self.asker,
            playbook=self.playbook,
            held=vaults.held,
            conceal=self.conceal,
            ahead=vaults.settings.keychain_ahead,
        )
        return Keychain(plan.entries, plan.workload, self._means(), keeping, now=time.time())

    def revealed(self, results: Mapping[str, Any], variables: Variables) -> Mapping[str, Any]:
        """*results* of earlier steps with the secrets that they looked up."""
        return revealed(results, variables.secrets, self.external)

    def resumed(self, resume: Resume, tasks: frozenset[str]) -> Resume:
        """*resume* with the secrets that its own *tasks* of that kind looked up before it parked."""
        if not tasks:
            return resume
        progress = dict(resume.progress)
        results = dict(progress.get("results") or {})
        for name in tasks & results.keys():
            masked, results[name] = results[name], answered(results[name], self.external)
            if progress.get("previous") == masked:
                progress["previous"] = results[name]
        return resume.model_copy(update={"progress": {**progress, "results": results}})

    def _means(self) -> Means:
        settings = self.vaults.settings
        return Means(
            self,
            Surroundings(
                variable=self.variable,
                folder=settings.secrets_dir,
                ambient=settings.secrets_ambient,
                web=Web(check=self._check_place),
            ),
        )

    def _check_place(self, host: str, address: str, port: int) -> None:
        """Entries may name places by their workload: the same are refused as for ``http``, but for
        private ones, where those who keep secrets are."""
        replace(policy_of(self.vaults.settings), private=True).check(host, address, port)
