"""Character-level recurrent networks as targets."""
