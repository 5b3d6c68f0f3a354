"""A controller that runs outside the cluster beside the one inside it: `STORE RUN NAMESPACE IDENTITY`."""

import sys
from pathlib import Path

from mstar.cluster import Cluster
from mstar.controller.loop import Controller
from mstar.controller.metrics import Metrics
from mstar.controller.place import settled
from mstar.controller.serve import Logged
from mstar.errors import MstarError
from mstar.executors.k8s.api import Api, connect
from mstar.executors.k8s.executor import KubernetesExecutor
from mstar.executors.k8s.names import Place
from mstar.history import load_run
from mstar.logs import set_up
from mstar.storage.lease import this_process
from mstar.storage.open import open_store

url, name, namespace, identity = sys.argv[1:]
set_up()
store = open_store(url)
run = load_run(store, name)
where = settled(store, name)
cluster = where.cluster if where else Cluster()
executor = KubernetesExecutor(
    Api(connect()[0], namespace), store, Place(run=name, store=store.url), cluster
)
try:
    Controller(
        store,
        executor,
        run,
        Logged(Metrics(run)),
        identity=this_process(identity),
        started_again=True,
    ).advance()
except MstarError as error:
    sys.stderr.write(f"{Path(__file__).name}: {error}\n")
    sys.exit(error.exit_code)
