"""`crony dev`: the whole of Crony on one machine, in one command."""
