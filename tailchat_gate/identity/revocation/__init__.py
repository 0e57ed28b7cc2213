"""Locks, and sessions that were ended early."""
