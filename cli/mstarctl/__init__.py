"""The command line. Read ``main`` (the commands), then ``work`` (what they do) and ``show`` (what they print)."""
