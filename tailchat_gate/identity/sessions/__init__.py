"""The gate's session: what it holds, the cookies that carry it, and sessions in the store."""
