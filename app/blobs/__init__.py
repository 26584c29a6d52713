"""Blob stores: where results go that are too large for the database. See ``engine.ports.BlobStore``."""
