"""One room: its floor, who is there, what they know, what was said and what happened."""
