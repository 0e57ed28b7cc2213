"""The bytes of requests and responses: fields, rules, framing; no I/O."""
