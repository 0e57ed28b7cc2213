"""Commands about people: who may use a tool, who is signed in, and what is stored about them."""
