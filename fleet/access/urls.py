from django.urls import URLPattern, URLResolver, path

from fleet.access import api, browser
from fleet.access.browser import from_access_origin

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("access/sessions/", api.SessionList.as_view(), name="sessions"),
    path("access/sessions/<str:pk>/", api.session, name="session"),
    path("access/sessions/<str:pk>/answer/", api.answer, name="session-answer"),
    path("access/sessions/<str:pk>/again/", api.again, name="session-again"),
    path("access/sessions/<str:pk>/ticket/", api.ticket, name="session-ticket"),
    path("access/sessions/<str:pk>/handover/", api.handover, name="session-handover"),
    path("access/sessions/<str:pk>/end/", api.end, name="session-end"),
    path("access/sessions/<str:pk>/audit/", api.audit, name="session-audit"),
    path("access/sessions/<str:pk>/report/", api.report, name="session-report"),
    path("access/browser/pass/", from_access_origin(browser.redeem, "POST"), name="browser-pass"),
    path(
        "access/browser/session/", from_access_origin(browser.look, "GET"), name="browser-session"
    ),
    path(
        "access/browser/session/answer/",
        from_access_origin(browser.answer, "POST"),
        name="browser-answer",
    ),
    path(
        "access/browser/session/end/", from_access_origin(browser.end, "POST"), name="browser-end"
    ),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
