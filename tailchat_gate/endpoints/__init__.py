"""The gate's own paths, a module for each; router.py names the handlers."""
