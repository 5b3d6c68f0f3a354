"""What an attempt waits for is said in the words of whoever has to do something about it."""

import pytest

from mstar.executors.base import State
from mstar.executors.k8s.diagnose import diagnose
from tests.executors.objects import (
    IMAGE,
    NAME,
    RUNNING,
    STARTING,
    condition,
    ended,
    event,
    failed_pod,
    job,
    pod,
    told,
    unschedulable,
    waiting,
)

POD = f"{NAME}-0-abcde"
QUOTA = (
    f'Error creating: pods "{POD}" is forbidden: exceeded quota: gpu-quota, requested: '
    "requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8"
)
SECURITY = (
    f'Error creating: pods "{POD}" is forbidden: violates PodSecurity "restricted:latest": host namespaces '
    "(hostNetwork=true), unrestricted capabilities"
)
LIMITS = f'Error creating: pods "{POD}" is forbidden: [maximum memory usage per Container is 8Gi, but limit is 16Gi]'
UNPAID = f'Error creating: pods "{POD}" is forbidden: failed quota: compute: must specify limits.cpu for: stage'
PULL = (
    f'Failed to pull image "{IMAGE}": rpc error: code = NotFound desc = failed to pull and unpack image: '
    "not found"
)
TAINT = "1 node(s) had untolerated taint {nvidia.com/gpu: present}"


def look(*pods, events=(), of=None):
    return diagnose(of or job(), list(pods), list(events))


UNSCHEDULABLE = {
    "GPU": (
        "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available.",
        ["unschedulable for want of nvidia.com/gpu (asks for 8): 0/3 nodes are available"],
    ),
    "memory at the end of a sentence": (
        "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available.",
        ["want of memory (asks for 16Gi):"],
    ),
    "CPU among others": (
        "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. no new claims to deallocate",
        ["want of cpu (asks for 4); memory (asks for 16Gi)"],
    ),
    "the selector": (
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: none",
        ["want of a node with gpu=h100, zone=b:"],
    ),
    "a taint": (
        f"0/4 nodes are available: {TAINT}, 3 Insufficient nvidia.com/gpu.",
        ["nvidia.com/gpu (asks for 8)", "a toleration for {nvidia.com/gpu: present}"],
    ),
    "several taints": (
        "0/4 nodes are available: 4 node(s) had untolerated taint(s) {a: b}.",
        ["a toleration for {a: b}"],
    ),
    "no node at all": (
        "no nodes available to schedule pods",
        ["unschedulable: no nodes available"],
    ),
    "a volume's place": (
        "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
        ["unschedulable: 0/2 nodes are available: 2 node(s) had volume node affinity conflict"],
    ),
}


@pytest.mark.parametrize(("message", "words"), UNSCHEDULABLE.values(), ids=UNSCHEDULABLE)
def test_a_pod_that_finds_no_place_says_what_is_wanting(message, words):
    selector = {"nodeSelector": {"zone": "b", "gpu": "h100"}}
    found = look(pod(0, "Pending", None, unschedulable(message), node="", spec=selector))
    assert (found.state, found.stuck) == (State.RUNNING, False)
    assert "preemption" not in found.waiting
    for each in words:
        assert each in found.waiting


def test_a_pod_that_fits_nowhere_by_affinity_says_so():
    message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    found = look(pod(0, "Pending", None, unschedulable(message), node=""))
    assert "a node that fits its affinity" in found.waiting


REFUSED = {
    "quota": (QUOTA, "quota: gpu-quota is used up (requested: requests.nvidia.com/gpu=8", False),
    "Pod Security": (
        SECURITY,
        'configuration: the namespace\'s Pod Security refuses the pod: "restricted:latest": host',
        True,
    ),
    "limit range": (LIMITS, "configuration: the pod is refused: Error creating: pods", True),
    "quota that wants limits": (UNPAID, "must specify limits.cpu", True),
}


@pytest.mark.parametrize(("message", "words", "stuck"), REFUSED.values(), ids=REFUSED)
def test_a_job_whose_pods_are_refused_says_why(message, words, stuck):
    found = look(events=[event(NAME, "FailedCreate", message)])
    assert words in found.waiting
    assert found.stuck is stuck


def test_a_refusal_that_is_over_is_not_told():
    events = [
        event(NAME, "FailedCreate", QUOTA, at=5),
        event(NAME, "SuccessfulCreate", "Created pod", at=9),
    ]
    assert look(events=events).waiting == "its pods are being made"
    newer = [*events, event(NAME, "FailedCreate", QUOTA, at=11)]
    assert "gpu-quota" in look(events=newer).waiting


def test_an_event_that_repeats_is_as_new_as_its_last_time():
    again = {"series": {"count": 7, "lastObservedTime": "2026-11-01T10:00:40.123456Z"}}
    events = [
        event(NAME, "FailedCreate", QUOTA, at=5, **again),
        event(NAME, "SuccessfulCreate", "Created pod", at=30),
    ]
    assert "gpu-quota" in look(events=events).waiting
    micro = event(NAME, "SuccessfulCreate", "Created pod", lastTimestamp=None)
    micro["eventTime"] = "2026-11-01T10:00:41.000001Z"
    assert "being made" in look(events=[events[0], micro]).waiting


def test_a_job_without_pods_and_events_is_waited_for():
    assert look().waiting == "its pods are being made"


IMAGES = {
    "ErrImagePull": 'rpc error: code = NotFound desc = failed to resolve reference "…"',
    "ImagePullBackOff": f'Back-off pulling image "{IMAGE}"',
    "ErrImageNeverPull": f'Container image "{IMAGE}" is not present with pull policy of Never',
    "InvalidImageName": f'Failed to apply default image tag "{IMAGE}": invalid reference format',
    "RegistryUnavailable": "",
}


@pytest.mark.parametrize(("reason", "message"), IMAGES.items(), ids=IMAGES)
def test_an_image_that_cannot_be_had_is_named_and_does_not_pass_by_itself(reason, message):
    found = look(pod(0, "Pending", waiting(reason, message)))
    assert found.waiting.startswith(f"image pull: {IMAGE} cannot be had: ")
    assert (message or reason)[:40] in found.waiting
    assert found.stuck


def test_the_event_of_a_failed_pull_says_more_than_the_back_off():
    events = [
        event(POD, "Failed", PULL),
        event(POD, "Failed", "Error: ErrImagePull"),
        event("another-pod", "Failed", PULL.replace("NotFound", "Unauthorized")),
    ]
    found = look(pod(0, "Pending", waiting("ImagePullBackOff", "Back-off pulling")), events=events)
    assert "code = NotFound" in found.waiting


CONFIGURATION = {
    "CreateContainerConfigError": 'secret "mstar-s3" not found',
    "CreateContainerError": "context deadline exceeded",
    "RunContainerError": 'exec: "/opt/mstar/bin/dumb-init": no such file or directory',
}


@pytest.mark.parametrize(("reason", "message"), CONFIGURATION.items(), ids=CONFIGURATION)
def test_a_container_that_cannot_be_made_says_why(reason, message):
    found = look(pod(0, "Pending", waiting(reason, message)))
    assert found.waiting == f"configuration: the container cannot be made: {message}"
    assert found.stuck


def test_a_failed_mount_is_told_until_it_is_over():
    mount = 'MountVolume.SetUp failed for volume "data" : persistentvolumeclaim "data" not found'
    events = [event(POD, "Pulled", "image is there", at=2), event(POD, "FailedMount", mount, at=5)]
    found = look(pod(0, "Pending", STARTING), events=events)
    assert f"pod {POD} cannot start: MountVolume.SetUp failed" in found.waiting
    assert found.stuck
    later = [*events, event(POD, "Pulling", f'Pulling image "{IMAGE}"', at=9)]
    assert "cannot start" not in look(pod(0, "Pending", STARTING), events=later).waiting


def test_an_image_that_is_being_pulled_is_said_to_be():
    pulling = event(POD, "Pulling", f'Pulling image "{IMAGE}"', at=3)
    found = look(pod(0, "Pending", STARTING), events=[pulling])
    assert found.waiting == f'Pulling image "{IMAGE}" on node-a'
    pulled = event(POD, "Pulled", "Successfully pulled image", at=8)
    found = look(pod(0, "Pending", STARTING), events=[pulling, pulled])
    assert found.waiting == f"pod {POD} is starting on node-a"


def test_a_pod_that_the_scheduler_has_not_seen_waits_for_it():
    bare = pod(0, "Pending", None, node="")
    bare["status"]["conditions"] = []
    assert look(bare).waiting == f"pod {POD} waits for the scheduler"


def test_a_scheduling_gate_holds_a_pod_back():
    gated = condition("PodScheduled", "SchedulingGated", "blocked", status="False")
    assert "held back by a scheduling gate" in look(pod(0, "Pending", None, gated, node="")).waiting


def test_a_suspended_job_waits_for_its_queue_or_for_somebody():
    found = look(of=job(suspend=True, queue="research"))
    assert found.waiting == "queue: Kueue has not admitted it yet (local queue research)"
    assert "names no queue" in look(of=job(suspend=True)).waiting


def test_an_attempt_works_as_soon_as_one_of_its_pods_does():
    pods = [pod(0, "Running", RUNNING), pod(1, "Pending", None, unschedulable("x"), node="")]
    assert look(*pods).waiting == ""


def test_the_worst_of_many_waiting_pods_is_told_and_how_many_wait():
    pods = [pod(0, "Pending", STARTING), pod(1, "Pending", waiting("ErrImagePull", "no such host"))]
    found = look(*pods)
    assert found.waiting.startswith("image pull:")
    assert found.waiting.endswith("(2 pods wait)")


def test_a_gang_waits_until_its_last_pod_works():
    gang = job(component="train", count=2)
    pods = [
        pod(0, "Running", RUNNING),
        pod(1, "Pending", None, unschedulable("1 Insufficient cpu"), node=""),
    ]
    assert "want of cpu (asks for 4)" in look(*pods, of=gang).waiting
    alone = look(pods[0], of=gang, events=[event(NAME, "FailedCreate", QUOTA)])
    assert "quota: gpu-quota" in alone.waiting
    both = [pods[0], pod(1, "Running", RUNNING)]
    assert look(*both, of=gang).waiting == ""
    nearly = [pods[0], pod(1, "Succeeded", ended(0))]
    assert look(*nearly, of=gang).waiting == ""


def test_a_single_trainer_is_no_gang():
    assert look(pod(0, "Running", RUNNING), of=job(component="train", count=1)).waiting == ""


def test_a_pod_whose_node_does_not_report_is_said_to_be_lost_and_what_helps():
    ready = condition("Ready", "", status="False")
    found = look(pod(0, "Running", RUNNING, ready))
    assert f"pod {POD} is not heard of any more: its node node-a may be lost" in found.waiting
    assert f"kubectl delete pod --force {POD}" in found.waiting
    well = condition("Ready", "", status="True")
    assert look(pod(0, "Running", RUNNING, well)).waiting == ""


def test_a_sidecar_that_is_not_ready_is_no_lost_node():
    ready = condition("Ready", "ContainersNotReady", status="False")
    proxy = {"proxy": waiting("CrashLoopBackOff", "back-off 10s")}
    assert look(pod(0, "Running", RUNNING, ready, others=proxy)).waiting == ""


def test_a_shard_that_is_tried_again_is_said_beside_what_it_waits_for():
    dead = failed_pod(1, told("the bucket is gone", 7, retriable=True), suffix="first")
    found = look(dead)
    assert found.state is State.RUNNING
    assert found.waiting.startswith("its pods are being made (shard 1, pod")
    assert "the bucket is gone; it is tried again" in found.waiting
    found = look(dead, pod(1, "Running", RUNNING))
    assert found.waiting == ""
    assert "it is tried again" in found.message
