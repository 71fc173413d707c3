"""The `crony` command: one file per noun, loaded when asked for."""
