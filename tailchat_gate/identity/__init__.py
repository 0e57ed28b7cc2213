"""Who the visitor is: sealed sessions and the Tailchat login."""
