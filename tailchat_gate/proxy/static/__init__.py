"""Files that a route serves itself."""
