"""The command that converts a configuration of oauth2-proxy."""
