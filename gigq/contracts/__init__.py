"""What a plugin implements, and the plain data that crosses the line between it and gigq.

A plugin imports this package, `gigq.errors`, `gigq.clock`, `gigq.hookspecs` and, for recovery on one
host, `gigq.liveness`; nothing else of gigq.
"""

#: The version of these contracts. A plugin states the one that it was made for; another is refused.
CONTRACT_VERSION = 1
