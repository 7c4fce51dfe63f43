"""Ways to change a row."""
