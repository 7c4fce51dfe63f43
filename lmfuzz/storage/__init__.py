"""A campaign's directory on disk."""
