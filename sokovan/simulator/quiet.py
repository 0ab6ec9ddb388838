"""Keeps logs to themselves."""

import contextlib
import logging
from collections.abc import Iterator
from typing import NoReturn

import structlog


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the logs of manager and agents, which are full of expected trouble, to themselves."""
    before, level = structlog.get_config(), logging.root.manager.disable
    structlog.configure(processors=[_drop])
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(level)


def _drop(logger: object, method: str, event: object) -> NoReturn:
    raise structlog.DropEvent
