"""The link between the portal and an access server."""

from tests.mutation.base import Mutation

LINK = "tests/broker/link/test_link.py"

TABLE = (
    Mutation(
        "a link is for the portal's certificate alone",
        "broker/link/uplink.py",
        "if not wire.names(line.certificate, wire.PORTAL_URI):",
        "if False:",
        (f"{LINK}::test_a_stranger_at_the_links_door_gets_nothing",),
    ),
    Mutation(
        "a link asks for a certificate",
        "broker/link/uplink.py",
        "ssl.CERT_REQUIRED",
        "ssl.CERT_NONE",
        (f"{LINK}::test_a_stranger_at_the_links_door_gets_nothing",),
    ),
    Mutation(
        "the access server at the other end is the one meant",
        "broker/link/remote.py",
        "if not wire.names(line.certificate, wire.SERVER_URI + self.options.name):",
        "if False:",
        (f"{LINK}::test_a_server_that_is_not_the_one_is_named",),
    ),
    Mutation(
        "over a link, PUBACK follows the portal's decision",
        "broker/link/remote.py",
        "if self._waiting or self._handler.up(delivery) is False:",
        "delivery.ack()\n        if self._waiting or self._handler.up(delivery) is False:",
        ("tests/broker/test_transport.py::test_acknowledged_when_it_is_committed_and_not_before",),
    ),
    Mutation(
        "what was not decided goes over the next link again",
        "broker/link/uplink.py",
        "in self._window.send():",
        "in ():",
        (f"{LINK}::test_a_link_that_drops_in_the_middle_of_a_batch",),
    ),
    Mutation(
        "frames to one device have a window over a link",
        "broker/link/remote.py",
        "self._frames.get(device, 0) >= self._limits.frame_bytes",
        "False",
        (f"{LINK}::test_frames_to_a_device_that_does_not_read_stay_within_their_window",),
    ),
    Mutation(
        "the deny-list survives an access server's restart",
        "broker/link/uplink.py",
        "gate.deny(self._denied)",
        "pass",
        (f"{LINK}::test_the_deny_list_reaches_the_gate_and_survives_its_restart",),
    ),
)  # fmt: skip
