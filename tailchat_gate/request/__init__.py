"""What the visitor asked, judged from the bytes on the wire; pure."""
