"""Reads playbooks: strict YAML, every form of the language, everything that is wrong at once."""
