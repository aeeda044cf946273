"""Live pages over one websocket, /ws/live/: hints that something changed, and live samples.

The browser sends `{"watch": ["device.<id>", "session.<id>", …]}` and `{"unwatch": […]}`; it gets
back `{"watching": […], "refused": […]}` and then hints `{"group": …, "kind": …, …}`. A hint says
*look again*: the page fetches what changed through the same door as every page. Watching a device
also brings its live samples, `{"group", "kind": "live", "at", "state", "values"}`, and asks the
device for its fast rate for as long as somebody watches; `"live": false` beside `watch` wants
neither.
"""
