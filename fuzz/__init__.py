"""Fuzzers of every parser that takes bytes of strangers: what must hold for any bytes at all."""
