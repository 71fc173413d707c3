"""What to do when etcd or the database was restored from a backup: see docs/how-to/restore.md."""
