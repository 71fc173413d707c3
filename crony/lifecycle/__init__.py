"""The verbs: one file and one transaction each (PROTOCOL 1.2).

What the leader does is a `Move` (see `move`): facts it has seen, what it puts, what it deletes. The
leader packs moves into transactions under its term. What nodes, webs and clients do is a function
that talks to etcd itself: publish, enqueue, register, end, quarantine.
"""
