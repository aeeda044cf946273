from django.urls import URLPattern, URLResolver, path

from fleet.jobs import api

api_urlpatterns: list[URLPattern | URLResolver] = [
    path("jobs/", api.JobList.as_view(), name="jobs"),
    path("jobs/<str:pk>/", api.job, name="job"),
    path("executions/<str:pk>/", api.execution, name="execution"),
    path("executions/<str:pk>/cancel/", api.cancel, name="execution-cancel"),
    path("executions/<str:pk>/bundle/", api.bundle, name="execution-bundle"),
]
page_urlpatterns: list[URLPattern | URLResolver] = []
