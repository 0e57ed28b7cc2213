"""The connections of clients, and what one of their requests may be handed to."""
