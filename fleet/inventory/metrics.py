"""What /metrics shows of owners. Counts only: no device, no organisation."""

from prometheus_client import Counter

UNPLACED = Counter(
    "patency_rows_unplaced_total",
    "Rows of devices that changed hands of which nobody can tell whose they are",
)
