"""What Tailchat knows about people, asked beside requests."""
