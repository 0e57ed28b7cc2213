"""Who is locked out and which sessions were ended early."""
