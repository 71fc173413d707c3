"""What people edit: job definitions with versions and audit, and their publication to etcd."""
