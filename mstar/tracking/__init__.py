"""What trackers are told of a run, and who tells them. Nothing here imports a tracker.

In reading order:

- `points`: a run's curves, from its history and manifests alone (pure)
- `reading`: the same from a store, live losses included
- `told`: which points a tracker has, so that none is told twice
- `packages`: whether a tracker can be told from here
- `process`: the process beside a run that does the telling
"""
