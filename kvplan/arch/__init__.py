"""What a model is: layers, the weights they multiply, and what a token leaves in the cache."""
