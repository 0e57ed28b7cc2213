"""Checks across tables: what is right by itself and wrong beside others."""
