"""The process: start, signals, listeners, configurations in force, reload."""
