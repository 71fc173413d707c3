"""The node: registration, execution, output, and what happens when something is let go."""
