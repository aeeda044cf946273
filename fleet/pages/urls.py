"""Every page of the portal."""

from django.urls import URLPattern, URLResolver, path

from fleet.access import pages as access
from fleet.access.pages import follow_up, notices, report
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
    path("access/<str:session>/again/", follow_up.session_again, name="session-again"),
    path("access/<str:session>/ticket/", follow_up.session_ticket, name="session-ticket"),
    path("access/<str:session>/handover/", follow_up.session_handover, name="session-handover"),
    path("access/<str:session>/end/", access.session_end, name="session-end"),
    path("access/<str:session>/browser/", access.session_browser, name="session-browser"),
    path("access/<str:session>/report/", report.session_report, name="session-report"),
    path("access/<str:session>/report.pdf", report.session_report_pdf, name="session-report-pdf"),
    path("notices/", notices.notices, name="notices"),
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
    path("account/security/", accounts.security, name="mfa_index"),
    path("account/security/needed/", accounts.second_factor, name="second-factor"),
    path("account/security/app/", accounts.app_new, name="mfa_activate_totp"),
    path("account/security/app/remove/", accounts.app_remove, name="mfa_deactivate_totp"),
    path("account/security/codes/", accounts.codes, name="mfa_view_recovery_codes"),
    path("account/security/codes/new/", accounts.codes_new, name="mfa_generate_recovery_codes"),
    path("account/security/passkeys/", accounts.security, name="mfa_list_webauthn"),
    path("account/security/passkeys/new/", accounts.passkey_new, name="mfa_add_webauthn"),
    path(
        "account/security/passkeys/<int:pk>/remove/",
        accounts.passkey_remove,
        name="mfa_remove_webauthn",
    ),
    path("account/security/password/", accounts.password, name="account_change_password"),
    path("account/sessions/", accounts.sessions, name="sign-ins"),
    path("account/sessions/end/", accounts.sessions_end, name="sign-ins-end"),
    path("account/sessions/<int:sign_in>/end/", accounts.session_end, name="sign-in-end"),
    path("account/confirm/", accounts.confirm, name="account_reauthenticate"),
    path("connect/", accounts.connect, name="connect"),
    path("sign-in/", accounts.sign_in, name="account_login"),
    path("sign-in/code/", accounts.code, name="mfa_authenticate"),
    path("sign-in/passkey/", accounts.passkey, name="mfa_login_webauthn"),
    path("sign-in/organisation/", accounts.organisation, name="organisation"),
    path("sign-in/with/<str:provider_id>/", accounts.provider, name="openid_connect_login"),
    path(
        "sign-in/with/<str:provider_id>/back/",
        accounts.provider_back,
        name="openid_connect_callback",
    ),
    path("sign-out/", accounts.sign_out, name="account_logout"),
    path("language/", accounts.language, name="language"),
]
