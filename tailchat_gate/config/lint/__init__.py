"""Settings that can be used and may not be meant."""
