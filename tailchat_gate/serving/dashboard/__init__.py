"""The admin page: what it shows, the orders that it takes, and who may give them."""
