"""The assistant that works alone: LiveKit first, a backend if there is one, and no Redis at all."""
