"""Renderers: a report in, text out. They know nothing of models or plans."""
