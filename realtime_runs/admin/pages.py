"""What our own pages in the admin have in common with Django's."""

from typing import Any, Final

import django
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from realtime_runs.display.text import showable

# From this version on Django's breadcrumbs are a list, with separators from its style sheet.
_LISTED: Final = django.VERSION >= (6, 1)


def page_context(model_admin: Any, request: HttpRequest, title: str, *crumbs: tuple[str, str]) -> dict[str, Any]:
    """`crumbs`: (address, words) between the list and this page."""
    opts, site = model_admin.opts, model_admin.admin_site

    def url(name: str, *arguments: str) -> str:
        return reverse(f"admin:{name}", args=arguments, current_app=site.name)

    return {
        **site.each_context(request),
        "title": title,
        "opts": opts,
        "media": model_admin.media,
        "crumbs": [
            (url("index"), "Home"),
            (url("app_list", opts.app_label), opts.app_config.verbose_name),
            (url(f"{opts.app_label}_{opts.model_name}_changelist"), str(opts.verbose_name_plural).capitalize()),
            *crumbs,
        ],
        "crumbs_are_listed": _LISTED,
    }


def missing(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
    """Back to the list, for what is not there and for what the user may not see: the two answers do not differ."""
    opts = model_admin.opts
    words = f"There is no {opts.verbose_name} “{showable(object_id, 80)}”. Old ones are removed after some time."
    model_admin.message_user(request, words, messages.WARNING)
    name = f"admin:{opts.app_label}_{opts.model_name}_changelist"
    return HttpResponseRedirect(reverse(name, current_app=model_admin.admin_site.name))
