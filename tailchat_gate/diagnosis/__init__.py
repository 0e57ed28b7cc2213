"""What is wrong around the gate, and how to mend it: each check asks one thing."""
