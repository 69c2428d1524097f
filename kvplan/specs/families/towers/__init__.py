"""The tensors of image and sound encoders, by the rules of their configs: counted, never computed.

Rules and class defaults from transformers 5.23, the modeling and configuration files of each family.
"""
