"""The REST API and the console (`crony web`): one process, many instances, nothing kept but caches."""
