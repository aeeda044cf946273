from django.urls import URLPattern, URLResolver, path

from fleet.access import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("access/sessions/", api.SessionList.as_view(), name="sessions"),
    path("access/sessions/<str:pk>/", api.session, name="session"),
    path("access/sessions/<str:pk>/answer/", api.answer, name="session-answer"),
    path("access/sessions/<str:pk>/end/", api.end, name="session-end"),
    path("access/sessions/<str:pk>/audit/", api.audit, name="session-audit"),
    path("access/sessions/<str:pk>/report/", api.report, name="session-report"),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
