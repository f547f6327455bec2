"""Wrapping other people's functions, now or once their module is imported, and taking all of it back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from types import FunctionType, MethodType, ModuleType
from typing import Any

import wrapt

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""`wrapper(wrapped, instance, args, kwargs)`: as wrapt would call it, and `wrapped` is bound to the instance."""
Substitute = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes the function in place of a method from the original, which both take the instance first."""


class Patches:
    """The functions that one feature has wrapped.

    Everything of wrapt is called by position, as versions 1 and 2 name their parameters differently.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self.active = True

    def wrap(self, owner: Any, name: str, wrapper: Wrapper) -> None:
        """Wrap a method that `owner` itself defines."""
        original = owner.__dict__[name]
        if inspect.iscoroutinefunction(original):
            # Of these servers want to know more (uvicorn calls an application to see what comes), and only wrapt's wrapper is
            # in all like the original.
            self._put(owner, name, wrapt.FunctionWrapper(original, wrapper))
        else:
            self.substitute(owner, name, partial(_plain, wrapper))

    def substitute(self, owner: Any, name: str, make: Substitute) -> None:
        """Put a function in place of a method that `owner` itself defines, with no wrapper between: for what every request and
        every span pays for."""
        original = owner.__dict__[name]
        self._put(owner, name, wraps(original)(make(_function(original, owner))))

    def _put(self, owner: Any, name: str, replacement: Any) -> None:
        self._undo.append(partial(_restore, owner, name, replacement, owner.__dict__[name]))
        setattr(owner, name, replacement)

    def wrap_later(self, module: str, owner: str, name: str, wrapper: Wrapper) -> None:
        """Wrap a method once its module is imported; at once where it is already."""
        self._later(module, owner, name, partial(self.wrap, wrapper=wrapper))

    def substitute_later(self, module: str, owner: str, name: str, make: Substitute) -> None:
        """As `substitute`, once its module is imported."""
        self._later(module, owner, name, partial(self.substitute, make=make))

    def _later(self, module: str, owner: str, name: str, do: Callable[[Any, str], None]) -> None:
        def imported(found: ModuleType) -> None:
            kind = getattr(found, owner, None)
            if self.active and kind is not None and name in vars(kind):
                do(kind, name)

        wrapt.register_post_import_hook(imported, module)

    def when_imported(self, module: str, do: Callable[[ModuleType], Callable[[], None]]) -> None:
        """Have something done once a module is imported; `do` returns what undoes it."""

        def imported(found: ModuleType) -> None:
            if self.active:
                self._undo.append(do(found))

        wrapt.register_post_import_hook(imported, module)

    def undo(self) -> None:
        """Restore everything, the latest first. A function that others have wrapped since keeps their wrapper, and ours in
        it."""
        self.active = False
        while self._undo:
            self._undo.pop()()


def _plain(wrapper: Wrapper, original: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, which takes a third of the time that wrapt's wrapper takes."""

    def wrapped(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        return wrapper(MethodType(original, instance), instance, args, kwargs)

    return wrapped


def _function(method: Any, owner: Any) -> Callable[..., Any]:
    """What a class defines, as a function of the instance."""
    if type(method) is FunctionType:  # which a wrapper by wrapt pretends to be
        return method
    bind = method.__get__  # another's wrapper has to know the instance

    def function(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        return bind(instance, owner)(*args, **kwargs)

    return function


def _restore(owner: Any, name: str, wrapped: object, original: object) -> None:
    if owner.__dict__.get(name) is wrapped:
        setattr(owner, name, original)
