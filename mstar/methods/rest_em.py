"""ReST-EM: newest responses, but each iteration trains the first weights again, with a fresh optimizer."""

from mstar.methods import Method

METHOD = Method(title="ReST-EM", weights=lambda _: 0, optimizer=lambda _: None)
