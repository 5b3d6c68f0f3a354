"""Where stages run. Read ``base`` (the protocol), ``local`` (a worker process), ``fake`` (for tests)."""
