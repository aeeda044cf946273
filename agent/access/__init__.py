"""Access at the injector: who asks, who is let in, and when they are out again.

`desk` decides (pure); `conditions`, `answers`, `policy`, `pins` and `roster` are what it goes by;
`shell` carries out what it decides, and `install` plugs it into the agent.
"""
