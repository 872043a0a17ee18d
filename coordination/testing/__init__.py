"""A kit for testing voice agents that share a room: a caller with a voice, and an ear that measures.

Everything in it works offline. What is measured is measured from the audio that the caller receives,
never from what agents say about themselves.
"""
