"""Celery tasks of an imaginary user, named to the node by CRONY_IMPORTS."""

from __future__ import annotations

import logging

from celery import shared_task

import crony


@shared_task
def add(first: int, *, x: int = 0) -> int:
    """Their sum."""
    print(f"adding {first} and {x}")
    return first + x


@shared_task
def spread(count: int) -> list[str]:
    """Enqueue more work from inside a task."""
    return [crony.enqueue(add, number, x=1).id for number in range(count)]


@shared_task
def explode() -> None:
    """Fail."""
    raise ValueError("as asked")


@shared_task
def give_away(given: str = "") -> None:
    """Tell a secret in every way a function has."""
    secret = crony.secret("P")
    print("kwargs", given)
    print("asked", secret)
    logging.getLogger("careless").error("logged %s", secret)
    raise ValueError(f"no luck with {secret}")
