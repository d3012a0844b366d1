"""Power cuts: what a queue's files may hold after one, at every moment of a busy life.

`workload` lives that life in a process whose writes and syncs are recorded in order, together with what it
was promised. `platter` builds from the record what a cut leaves at any moment: what was synced, and of the
rest nothing, or some, or torn pieces. `judge` opens it with gigq and compares it with the promises made by
then.
"""
