"""What becomes of a call whose agent dies, hangs or has to move: found out, silenced, replaced.

The workers do it among themselves: there is no extra deployment, and no single point of failure.
"""
