from tests.fleet.access.conftest import injector as injector
from tests.fleet.access.conftest import now as now
