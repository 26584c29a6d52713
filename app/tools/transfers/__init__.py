"""The sides of a transfer: one file per kind of place that rows come from or go to.

A source tells its columns and gives its rows as CSV, piece by piece; a target takes them. What
travels is the CSV of ``stream.py`` in every case, so that any source goes with any target.
"""
