"""What accepts connections: sockets, listeners, PROXY headers, and the gate's own TLS."""
