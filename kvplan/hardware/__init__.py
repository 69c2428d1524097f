"""Accelerators: what a datasheet and a driver say of them."""
