"""The values of the configuration: how each is checked and read."""
