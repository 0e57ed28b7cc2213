"""The login at Tailchat: OAuth 2.0, OpenID Connect, and what Tailchat answers."""
