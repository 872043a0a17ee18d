"""Worked examples of the documentation. Tests run them."""
