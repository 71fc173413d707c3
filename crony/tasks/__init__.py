"""The Celery tasks of Crony: few and thin."""
