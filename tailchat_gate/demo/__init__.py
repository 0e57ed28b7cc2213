"""A stand-in Tailchat and a sample tool, for `tailchat-gate demo` and the tests."""
