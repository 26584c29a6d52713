"""Callboard runs YAML playbooks durably: the log says what happened, the broker only says where to look."""
