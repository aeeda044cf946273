"""What /metrics shows of credentials. Counts only: no device, no person."""

from prometheus_client import Counter, Gauge

ISSUED = Counter("patency_credentials_issued_total", "Certificates issued, by occasion", ["how"])
REVOKED = Counter("patency_credentials_revoked_total", "Certificates revoked, by reason", ["why"])
DENIED = Gauge("patency_credentials_denied", "Certificates on this gate's deny-list")
EXPIRING = Gauge(
    "patency_credentials_expiring", "Devices whose newest certificate ends within seven days"
)
ENDS = Gauge(
    "patency_certificate_end_seconds",
    "When a certificate of ours must be replaced, seconds since 1970: server, device_ca, and the"
    " access server's as its link tells",
    ["certificate", "server"],
)
ALARMS = Counter("patency_credential_alarms_total", "Alarms about credentials, by kind", ["kind"])
