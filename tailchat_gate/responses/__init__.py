"""The responses that the gate makes itself: pages, JSON, redirects, refusals."""
