"""Which route a request meets and whether the visitor may use it; pure."""
