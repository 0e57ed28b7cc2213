"""Several processes that serve on the same sockets, and the parent that starts and queries them."""
