"""Parsers as plain as they can be: slow, for whole messages, byte by byte from the RFCs."""
