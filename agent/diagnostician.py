"""Keeps the diagnosis up to date."""
