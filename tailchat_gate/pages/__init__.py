"""The pages a person sees, in nine languages."""
