"""Warnings about settings that are valid but probably mistakes."""
