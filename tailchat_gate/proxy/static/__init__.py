"""Files and fixed responses that the gate itself serves on a route."""
