"""The request, judged from the bytes on the wire; pure."""
