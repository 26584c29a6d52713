"""What is suspicious in a playbook that could run: warnings, each with its place."""
