"""Who is in the groups of Tailchat, and how the gate learns of it."""
