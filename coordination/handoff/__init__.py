"""Moving the floor and the context of a call to another role: make before break."""
