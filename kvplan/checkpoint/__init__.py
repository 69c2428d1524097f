"""Released weights and tokenizers, read from disk."""
