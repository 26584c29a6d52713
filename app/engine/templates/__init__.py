"""Jinja in a sandbox: native values, lazy names, and a budget for what a rendering may cost."""
