"""The tables of the file, each a model that checks its own keys."""
