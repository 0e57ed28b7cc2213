"""The admin listener, and what it says to programs."""
