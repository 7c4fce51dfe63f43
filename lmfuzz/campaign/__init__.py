"""One campaign: what a spec names, put together and run."""
