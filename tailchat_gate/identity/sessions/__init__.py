"""The gate's session: what it holds, and the cookies that carry it."""
