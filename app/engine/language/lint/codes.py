"""What is said about playbooks beyond the parser's own findings: each code, and what it means."""

from __future__ import annotations

from collections.abc import Mapping

LINT_CODES: Mapping[str, str] = {
    "tool-key-missing": "A tool lacks a key it cannot do without.",
    "tool-key-type": "A tool's key holds something the tool cannot use.",
    "tool-key-unknown": "A tool has a key it does not know, which is ignored.",
    "deprecated": "An older form, which is read and need not be written any more.",
    "unreachable-step": "A step never runs, because nothing leads to it.",
    "join-never": "A join never fires, because no arc to it is ever taken.",
    "arc-never": "An arc is never taken.",
    "unknown-step": "A template reads the result of a step that does not exist.",
    "unknown-name": "A template reads a name that nothing gives and that is nearly a known one.",
    "keychain-undeclared": "A template reads a credential that is not declared.",
    "iterator-hides": "A loop's iterator hides a workload key or a step.",
    "window-unused": "A sequential loop says how many items run at once.",
    "retry-too-late": "A retry waits longer than its step may take.",
    "secret-literal": "A text looks like a secret.",
}
