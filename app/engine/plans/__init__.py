"""What a playbook would do, before it runs: as data, as text, as a flowchart."""
