"""Finds faults around the gate and their remedies: each check asks one thing."""
