"""The exchange with the upstream: headers, connections, relay, tunnel."""
