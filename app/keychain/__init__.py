"""Secrets at rest and where they come from: encryption, providers, and the entries of a keychain."""
