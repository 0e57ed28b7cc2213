"""The pages a person sees, in English and Chinese."""
