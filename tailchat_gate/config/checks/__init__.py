"""Checks across tables: values that are valid alone but conflict with others."""
