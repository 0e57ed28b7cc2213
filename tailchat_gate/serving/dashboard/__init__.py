"""The admin page: what it shows, and the orders that operators give there."""
