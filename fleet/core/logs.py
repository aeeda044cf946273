"""What goes into the log, and how much of it."""

import logging

_MOST = 300  # characters of a line that a stranger has written a part of


class StrangersFilter(logging.Filter):
    """A request that Django turns away as suspicious, such as one for another host, is a line and
    no traceback: whoever can connect could fill the disk with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security"):
            record.exc_info = record.exc_text = None
            said = record.getMessage()
            if record.name == "django.security.DisallowedHost":
                said = f"{said.partition('. You may')[0]}. It is none of PATENCY_ORIGINS: add it"
                said += " there if browsers shall reach the portal by it."
            record.msg, record.args = said[:_MOST], ()
        return True
