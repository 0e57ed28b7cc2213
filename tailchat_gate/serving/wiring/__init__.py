"""Builds the parts of a gate from its settings."""
