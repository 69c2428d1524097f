"""Readers of model and accelerator files, and the catalog that finds them."""
