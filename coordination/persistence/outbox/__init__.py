"""What is to be saved and is not yet: durable at once, delivered later, in order, at least once."""
