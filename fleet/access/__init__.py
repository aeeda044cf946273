"""Access sessions: asked for, answered, carried, ended."""
