"""From in-process handoffs to separate workers, step by step: docs/how-to/from-in-process-handoffs.md."""
