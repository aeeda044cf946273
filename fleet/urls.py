"""The URL table: health and machine interfaces here, everything else from the apps."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

from fleet.access.urls import api_urlpatterns as access_api
from fleet.accounts.urls import api_urlpatterns as accounts_api
from fleet.core import health
from fleet.enrolment.urls import api_urlpatterns as enrolment_api
from fleet.enrolment.views import enrol
from fleet.inventory.urls import api_urlpatterns as inventory_api
from fleet.jobs.urls import api_urlpatterns as jobs_api
from fleet.pages.urls import page_urlpatterns
from fleet.servers.urls import api_urlpatterns as servers_api
from fleet.telemetry.urls import api_urlpatterns as telemetry_api

api = [
    *accounts_api,
    *inventory_api,
    *enrolment_api,
    *telemetry_api,
    *access_api,
    *jobs_api,
    *servers_api,
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
]

urlpatterns = [
    path("-/live", health.live, name="live"),
    path("-/ready", health.ready, name="ready"),
    path("metrics", health.metrics, name="metrics"),
    path("enrol/v1", enrol, name="enrol"),
    path("api/v1/", include((api, "api"))),
    path("", include(page_urlpatterns)),
]

handler400 = "fleet.pages.errors.bad_request"
handler403 = "fleet.pages.errors.permission_denied"
handler404 = "fleet.pages.errors.not_found"
handler500 = "fleet.pages.errors.server_error"
