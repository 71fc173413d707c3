"""The scheduling centre: one leads and decides, the others wait to (DESIGN sections 2 and 5)."""
