"""How page views answer: signed-in people only, errors as pages, fragments for partial updates."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.cache import patch_cache_control, patch_vary_headers

from fleet.accounts.models import User
from fleet.accounts.permissions import everywhere
from fleet.core.errors import PortalError
from fleet.pages.errors import error_page

View = Callable[..., HttpResponseBase]
PAGE_SIZE = 25


def page(view: View) -> View:
    """For every page but sign-in: asks to sign in first, shows our errors as pages, and keeps
    what was shown out of caches (a hospital's shared computer remembers nothing)."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = view(request, *args, **kwargs)
        except PortalError as error:
            response = error_page(request, error.status, error.message)
        patch_vary_headers(response, ["HX-Request", "Cookie"])
        patch_cache_control(response, private=True, no_store=True)
        return response

    return login_required(wrapped)


def person(request: HttpRequest) -> User:
    """The signed-in person; only under `page`."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied
    return user


def is_partial(request: HttpRequest, target: str) -> bool:
    """Whether htmx asks for the element with this id alone."""
    htmx: Any = request.htmx  # type: ignore[attr-defined]  # set by django-htmx's middleware
    return bool(htmx) and not htmx.boosted and htmx.target == target


def show(
    request: HttpRequest,
    template: str,
    context: dict[str, Any],
    *,
    fragments: dict[str, str] | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render the page, or the fragment of it that htmx asks for (element id -> template)."""
    for target, fragment in (fragments or {}).items():
        if is_partial(request, target):
            return render(request, fragment, context, status=status)
    return render(request, template, context, status=status)


def paginate(request: HttpRequest, rows: Any, size: int = PAGE_SIZE) -> Page[Any]:
    """The page asked for; one that does not exist is the nearest."""
    return Paginator(rows, size).get_page(request.GET.get("page"))


def watch_groups(user: User) -> list[str]:
    """What a page over everything that the user may see listens to."""
    return ["fleet"] if everywhere(user) else [f"organisation.{user.organisation_id}"]
