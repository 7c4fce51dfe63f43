"""A campaign as one HTML file that opens offline, or several side by side."""
