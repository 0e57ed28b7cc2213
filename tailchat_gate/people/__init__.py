"""Facts of Tailchat about people, fetched in the background."""
