"""What a model is given: spaces of legal rows, tokenizers, seeds, images and the corpus."""
