"""The composition root: one straight function that builds the console from its settings.

The only module that knows every other. Long on purpose: nearly every line uses what earlier lines made.
"""
