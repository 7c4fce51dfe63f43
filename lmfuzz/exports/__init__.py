"""A campaign's findings for others: people, spreadsheets, test runners, CI systems."""
