"""The gate's own paths, a module for each; table.py says which handler answers what."""
