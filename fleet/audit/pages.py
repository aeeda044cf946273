"""The audit: what was done where the reader may look, and whether the record holds."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST, require_safe

from fleet.accounts.models import Organisation
from fleet.accounts.permissions import Action, allowed, require, restrict
from fleet.audit import verification
from fleet.audit.labels import ACTIONS
from fleet.audit.models import DeviceEntry, Entry
from fleet.inventory.models import Device
from fleet.pages.http import page, paginate, person, show

MAX_DEVICE_CHAINS = 200  # verified in one go; the command verifies all


@page
@require_safe
def audit(request: HttpRequest) -> HttpResponse:
    return _audit(request)


@page
@require_POST
def audit_verify(request: HttpRequest) -> HttpResponse:
    """A POST, since it is work: walk every chain, and name the first bad entry of each."""
    user = require(person(request), Action.AUDIT_VERIFY)
    names = dict(Organisation.objects.values_list("pk", "name"))
    serials = dict(
        restrict(Device.objects.all(), user, Action.AUDIT_VERIFY).values_list("pk", "serial")[
            :MAX_DEVICE_CHAINS
        ]
    )
    names |= serials
    verdicts = [verification.verify_organisation(pk) for pk in names if pk not in serials]
    verdicts += [verification.verify_device(pk) for pk in serials]
    verdicts.append(verification.verify_heads())
    found = [(verdict, names.get(verdict.chain, "")) for verdict in verdicts if verdict.entries]
    return _audit(request, verdicts=found)


def _audit(request: HttpRequest, **more: Any) -> HttpResponse:
    user = require(person(request), Action.AUDIT_VIEW)
    side = "device" if request.GET.get("side") == "device" else "server"
    action = request.GET.get("action", "")
    rows: Any
    if side == "device":
        rows = DeviceEntry.objects.select_related("device", "organisation").order_by("-pk")
    else:
        rows = Entry.objects.select_related("organisation").order_by("-pk")
    rows = restrict(rows, user, Action.AUDIT_VIEW)
    if action in ACTIONS:
        rows = rows.filter(action=action)
    shown = paginate(request, rows, 50)
    serials = {}
    if side == "server":
        devices = {row.device for row in shown if row.device}
        serials = dict(Device.objects.filter(pk__in=devices).values_list("pk", "serial"))
    for row in shown:
        row.serial = row.device.serial if side == "device" else serials.get(row.device, "")
        row.device_pk = row.device_id if side == "device" else row.device
    context = {
        "page": shown,
        "side": side,
        "action": action,
        "actions": sorted(ACTIONS.items(), key=lambda item: str(item[1])),
        "may_verify": allowed(user, Action.AUDIT_VERIFY),
        **more,
    }
    return show(request, "audit/audit.html", context)
