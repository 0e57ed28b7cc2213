"""One request with its response, or one WebSocket, between the two sides."""
