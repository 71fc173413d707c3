"""The duties of a leader, one file each. On its loop: firing, inbox, waiting, failover, settling, pruning.
In threads of their own, because they wait for others: archiver, reconcile, compaction, idempotency pruning.
"""
