"""What may stand in a playbook: one table of forms, and what is made from it."""
