"""A small, complete etcd v3 client over the JSON gateway: synchronous, typed, safe with threads and forks."""
