"""What must outlive a request and is in no cookie: one store, in a database or in memory."""
