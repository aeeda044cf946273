"""The link between the portal and a gate in another process.

    devices ══▶ gate ─ Uplink ══ one TLS session, MQTT 3.1.1 ══ RemoteGate ─ exchange ─ portal
                        (listens: address, authority and rule of its own)   (connects)

Theory of operation. The gate's side is a small MQTT server for one client, the portal. Device
messages go up as they came, on `pat/1/{device}/up/…`: at QoS 1 the portal's PUBACK is its decision,
and only then does the device get its own. At most a window of them is un-acknowledged, in messages
and in bytes; what does not fit waits in its device's own window, and the device is still read, so
it does not reconnect. When the link breaks, the window is kept and sent again in order on the next
one: keys make that harmless. Down messages and stream frames are at QoS 0. Frames to a device have
a window of their own, which the gate gives back as the device's socket takes them.

A link begins with a snapshot of who is connected. The portal sends the deny-list when the link
comes up and when it changes; the gate keeps it on disk, so that a restart without the portal lets
nobody in who was denied. Both ends cut a link that is silent. Source: R-CON-5, R-CON-6, R-CON-9.
"""
