"""Training: one loop, and for each network what one step of it is."""
