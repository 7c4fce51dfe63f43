"""Small models trained with faults that are known: the ground truth that searches are compared on."""
