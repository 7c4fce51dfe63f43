"""How objectives, operators, searches, features and targets are named, written and made."""
