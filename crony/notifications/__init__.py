"""Telling people: what an alert says in a message, and the senders that bring it to them."""
