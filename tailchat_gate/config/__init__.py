"""What the admin wrote, as one immutable Settings."""
