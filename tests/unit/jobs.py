"""Functions that unit tests submit; none is ever run by a worker here."""

from __future__ import annotations

from gigq import task


def add(a, b=2):
    return a + b


def takes_parents(parent_results):
    return parent_results


def takes_anything(**values):
    return values


def by_position_only(a, /, b):
    return a, b


def positional_default(a=1, /, b=2):
    return a, b


async def coroutine(a):
    return a


def generator():
    yield 1


class Owner:
    def method(self):
        return None

    @staticmethod
    def static():
        return None


class Caller:
    def __call__(self):
        return None


class Unhashable:
    __hash__ = None

    def __call__(self):
        return None


@task
def double(number: int) -> int:
    """Twice the number."""
    return number * 2


@task(
    name="greeter", priority=7, max_attempts=5, timeout=12.5, retry_delay=3, description="says hi"
)
def greet(name: str, greeting: str = "Hello") -> str:
    return f"{greeting}, {name}"


@task
async def later(number: int) -> int:
    return number
