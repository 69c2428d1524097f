"""One adapter per family: the rules by which its config.json means a model."""
