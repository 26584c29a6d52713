"""Breaks a whole Callboard on purpose, as real processes, and reads from its log whether that showed.

``python -m tests.chaos`` runs it; ``docs/how-to/chaos.md`` says how to read what it prints.
"""
