"""Every page of the portal."""

from django.urls import URLPattern, URLResolver, path

from fleet.access import pages as access
from fleet.accounts import pages as accounts
from fleet.audit import pages as audit
from fleet.enrolment import pages as enrolment
from fleet.inventory import pages as inventory
from fleet.jobs import pages as jobs
from fleet.servers import pages as servers
from fleet.telemetry import pages as telemetry

page_urlpatterns: list[URLPattern | URLResolver] = [
    path("", telemetry.now, name="now"),
    path("devices/", inventory.devices, name="devices"),
    path("devices/<str:device>/", inventory.device, name="device"),
    path("devices/<str:device>/samples/", inventory.device_samples, name="device-samples"),
    path("devices/<str:device>/identity/", enrolment.identity, name="device-identity"),
    path("devices/<str:device>/revoke/", enrolment.revoke, name="device-revoke"),
    path("devices/<str:device>/acknowledge/", enrolment.acknowledge, name="device-acknowledge"),
    path("devices/<str:device>/move/", enrolment.move, name="device-move"),
    path("devices/<str:device>/retire/", enrolment.retire, name="device-retire"),
    path("devices/<str:device>/request/", access.request_access, name="access-request"),
    path("access/", access.sessions, name="sessions"),
    path("access/<str:session>/", access.session, name="session"),
    path("access/<str:session>/end/", access.session_end, name="session-end"),
    path("access/<str:session>/report/", access.session_report, name="session-report"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/new/", jobs.job_new, name="job-new"),
    path("jobs/<str:job>/", jobs.job, name="job"),
    path("executions/<str:execution>/cancel/", jobs.execution_cancel, name="execution-cancel"),
    path("executions/<str:execution>/bundle/", jobs.bundle, name="bundle"),
    path("audit/", audit.audit, name="audit"),
    path("audit/verify/", audit.audit_verify, name="audit-verify"),
    path("servers/", servers.servers, name="servers"),
    path("servers/new/", servers.server_new, name="server-new"),
    path("servers/<str:name>/", servers.server, name="server"),
    path("servers/<str:name>/use/", servers.server_use, name="server-use"),
    path("servers/<str:name>/retire/", servers.server_retire, name="server-retire"),
    path("allow-list/", servers.allow_list, name="allow-list"),
    path("allow-list.json", servers.allow_list_json, name="allow-list-json"),
    path("allow-list.txt", servers.allow_list_text, name="allow-list-text"),
    path("account/", accounts.account, name="account"),
    path("account/tokens/", accounts.token_new, name="token-new"),
    path("account/tokens/<int:token>/revoke/", accounts.token_revoke, name="token-revoke"),
    path("sign-in/", accounts.sign_in, name="sign-in"),
    path("sign-out/", accounts.sign_out, name="sign-out"),
    path("language/", accounts.language, name="language"),
]
