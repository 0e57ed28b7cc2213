"""The login at Tailchat: OAuth 2.0, OpenID Connect, and Tailchat's responses."""
