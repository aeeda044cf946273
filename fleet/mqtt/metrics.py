"""What /metrics shows of ingest and presence. Counts only: no device, no person."""

from prometheus_client import Counter, Gauge, Histogram

CONNECTED = Gauge("patency_devices_connected", "Devices with a live connection, at any gate")
DEPTH = Gauge("patency_ingest_depth", "Messages that wait for the database")
BATCH = Histogram(
    "patency_ingest_batch_messages",
    "Messages in one commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 400),
)
COMMIT = Histogram(
    "patency_ingest_commit_seconds",
    "Time to decide on a batch and commit it",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
DECIDED = Counter(
    "patency_messages_decided_total", "Messages decided, by type and outcome", ["type", "outcome"]
)
TROUBLE = Counter("patency_ingest_trouble_total", "Times the database could not be written")
PAUSED = Counter("patency_ingest_paused_total", "Times the gate was told to wait")
REFUSED = Counter(
    "patency_refusals_total", "Refusals that any gate told the portal of, by reason", ["reason"]
)
REFUSED_MESSAGES = Counter(
    "patency_messages_refused_total", "Messages refused, by type and reason", ["type", "reason"]
)
GAPS = Counter(
    "patency_outbox_gaps_total",
    "Numbers missing in a device's outbox: found (it is asked again), lost (it has them no more)",
    ["outcome"],
)
