"""What the commands' tests on a fake cluster look for."""

from mstar.executors.k8s.names import Place, controller_name


def refused(result, error, *words):
    """The command ended with the error's code and one message that has these words."""
    code, _, said = result
    assert code == error.exit_code, said
    assert said.startswith("mstarctl: "), said
    for word in words:
        assert word in said


def job_of(store, name="small"):
    return controller_name(Place(run=name, store=store.url))


def pull_fails(cluster, name):
    """The controller's pod cannot have its image."""
    made = cluster.get("Job", name)
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-abcde",
            "labels": made["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name},
            "ownerReferences": [
                {"uid": made["metadata"]["uid"], "blockOwnerDeletion": True, "kind": "Job"}
            ],
        },
        "spec": made["spec"]["template"]["spec"] | {"nodeName": "node-1"},
        "status": {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": "stage",
                    "image": "localhost/mstar-controller:9",
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
                }
            ],
        },
    }
    cluster.put(pod)
