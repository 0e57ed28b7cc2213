"""The store in a SQLite file, in one thread, and its repair."""
