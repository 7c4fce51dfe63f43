"""What is done with a campaign afterwards: summaries, replays, sweeps."""
