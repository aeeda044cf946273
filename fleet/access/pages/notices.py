"""How the hospital is told of access to its injectors."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from fleet.access import notices as services
from fleet.access.models import Notice, NoticeSettings
from fleet.accounts.permissions import Action, require, restrict
from fleet.core import clock, widgets
from fleet.core.errors import Invalid
from fleet.pages.http import page, person, show

TROUBLES: dict[str, str | Promise] = {
    "address": gettext_lazy("its name leads nowhere"),
    "private": gettext_lazy("its address is not public"),
    "tls": gettext_lazy("its certificate is not accepted"),
    "connection": gettext_lazy("it does not answer"),
    "status": gettext_lazy("it answered with an error"),
    "secret": gettext_lazy("its secret cannot be read any more: give the address again"),
    "mail": gettext_lazy("the mail server did not take it"),
    "off": gettext_lazy("it is switched off"),
}


class NoticeForm(forms.Form):
    email = forms.BooleanField(
        label=gettext_lazy("By e-mail, to everybody here who has given an address"),
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    address = forms.CharField(
        label=gettext_lazy("Your own e-mail address"),
        required=False,
        max_length=254,
        widget=widgets.text(),
    )
    webhook_url = forms.CharField(
        label=gettext_lazy("Webhook"),
        required=False,
        max_length=500,
        help_text=gettext_lazy(
            "An https address of yours that takes signed JSON. A new address gets a new secret, "
            "shown once."
        ),
        widget=widgets.text(),
    )


@page
@require_http_methods(["GET", "POST"])
def notices(request: HttpRequest) -> HttpResponse:
    user = require(person(request), Action.NOTICE_SET)
    chosen = restrict(NoticeSettings.objects.all(), user, Action.NOTICE_SET).first()
    initial: dict[str, Any] = {"address": user.email}
    if chosen is not None:
        initial |= {"email": chosen.email, "webhook_url": chosen.webhook_url}
    form = NoticeForm(request.POST or None, initial=initial)
    secret = ""
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            services.set_address(actor=user, address=given["address"])
            chosen, secret = services.set_up(
                actor=user, email=given["email"], webhook_url=given["webhook_url"], now=clock.now()
            )
            messages.success(request, _("Notices are set."))
        except Invalid as error:
            form.add_error(None, error.message)
    rows = restrict(Notice.objects.select_related("session__device"), user, Action.ACCESS_VIEW)
    context: dict[str, Any] = {
        "form": form,
        "chosen": chosen,
        "trouble": TROUBLES.get(chosen.trouble, "") if chosen else "",
        "secret": secret,
        "mail_here": bool(settings.PATENCY_SMTP),
        "latest": [
            (row, TROUBLES.get(row.trouble, "")) for row in rows.order_by("-created_at")[:10]
        ],
    }
    return show(request, "access/notices.html", context, status=400 if form.errors else 200)
