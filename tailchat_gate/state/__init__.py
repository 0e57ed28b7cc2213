"""Stores what must outlive a request and is in no cookie: in a database or in memory."""
