"""Answers that come later: every form of them is a Deferred."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred


def as_deferred(answer: Awaitable[Any]) -> "Deferred[Any]":
    """Any awaitable as a Deferred: a coroutine, an asyncio future, or a Deferred itself."""
    if isinstance(answer, Deferred):
        return answer
    if isinstance(answer, Coroutine):
        return Deferred.fromCoroutine(answer)
    if isinstance(answer, asyncio.Future):
        return Deferred.fromFuture(answer)

    async def wait() -> Any:
        return await answer

    return Deferred.fromCoroutine(wait())
