"""Embedding models have no callbacks: wrap the methods of every class that defines them, also of those that are still to come."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Iterator
from typing import Any, Final

import wrapt

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.patches import callable_of
from lstm_trace.instrument.langchain.runs import RUN_KEY, Run
from lstm_trace.recorder import ambient

_MODULE: Final = "langchain_core.embeddings.embeddings"
_METHODS: Final = ("embed_documents", "embed_query", "aembed_documents", "aembed_query")
_MODEL_KEYS: Final = ("model", "model_name", "model_id")


class EmbeddingPatches:
    """Every wrapped method with its original, as for the other patches."""

    def __init__(self) -> None:
        self._originals: list[tuple[type, str, Any, Any]] = []
        self._hook: Any = None
        self._active = False
        self._waiting = False
        self._lock = threading.Lock()

    def apply(self) -> None:
        """Wrap now, or as soon as LangChain's embeddings are imported."""
        self._active = True
        import sys

        if (module := sys.modules.get(_MODULE)) is not None:
            self._patch(module)
        elif not self._waiting:
            self._waiting = True
            wrapt.register_post_import_hook(self._patch, _MODULE)

    def restore(self) -> None:
        """Put every original back."""
        with self._lock:
            self._active = False
            for owner, name, original, ours in reversed(self._originals):
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)
            self._originals.clear()
            if self._hook is not None:
                del self._hook.__init_subclass__
                self._hook = None

    def _patch(self, module: Any) -> None:
        if not self._active or self._hook is not None:
            return
        base = module.Embeddings
        for kind in _below(base):
            self._wrap(kind)

        @classmethod  # type: ignore[misc]
        def __init_subclass__(cls: Any, **kwargs: Any) -> None:
            super(base, cls).__init_subclass__(**kwargs)
            self._wrap(cls)

        base.__init_subclass__ = __init_subclass__
        self._hook = base

    def _wrap(self, kind: Any) -> None:
        with shield, self._lock:
            for name in _METHODS:
                original = vars(kind).get(name)
                if not self._active or not inspect.isfunction(original) or getattr(original, "__isabstractmethod__", False):
                    continue
                ours = (_awrapped if inspect.iscoroutinefunction(original) else _wrapped)(callable_of(original))
                setattr(kind, name, ours)
                self._originals.append((kind, name, original, ours))


def _below(base: Any) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)


def _open(embeddings: Any) -> Run | None:
    try:
        above: Any = ambient.get().get(RUN_KEY)
        now = handler.now()
        if now is None or (above is not None and above.kind == "embedding"):
            return None  # one method of an embedding model often calls another
        name = next((value for key in _MODEL_KEYS if isinstance(value := getattr(embeddings, key, None), str) and value), None)
        name = name or type(embeddings).__name__
        run = handler.start(now, "embedding", name, object(), details=now.vocabulary.embedding(name))
        if run is not None:
            handler.live.hold(run)
        return run
    except Exception as error:  # noqa: BLE001
        shield.caught(error)
        return None


def _close(run: Run, error: BaseException | None = None) -> None:
    with shield:
        handler.end(run, error=error)


def _wrapped(original: Any) -> Any:
    @functools.wraps(original)
    def embed(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = _open(self)
        if run is None or run.context is None:
            return original(self, *args, **kwargs)
        token = ambient.enter(run.context)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            _close(run, error)
            raise
        finally:
            ambient.leave(token)
        _close(run)
        return result

    return embed


def _awrapped(original: Any) -> Any:
    @functools.wraps(original)
    async def embed(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = _open(self)
        if run is None or run.context is None:
            return await original(self, *args, **kwargs)
        token = ambient.enter(run.context)
        try:
            result = await original(self, *args, **kwargs)
        except BaseException as error:
            _close(run, error)
            raise
        finally:
            ambient.leave(token)
        _close(run)
        return result

    return embed
