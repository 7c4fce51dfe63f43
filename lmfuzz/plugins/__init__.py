"""Names and parameters of objectives, operators, searches, features and targets."""
