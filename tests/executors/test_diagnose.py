"""Of many dead pods the one that went wrong first is named, with why and with the code that says what to do."""

import itertools

import pytest

from mstar import errors
from mstar.executors.base import State
from mstar.executors.k8s.diagnose import diagnose
from tests.executors.objects import (
    IMAGE,
    NAME,
    RUNNING,
    condition,
    ended,
    event,
    failed_pod,
    job,
    pod,
    told,
)

LIMIT = condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
POLICY = condition(
    "Failed",
    "PodFailurePolicy",
    "Container stage for pod ml/x failed with exit code 3 matching FailJob rule",
)
INDEXES = condition(
    "Failed",
    "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
)
TARGET = POLICY | {"type": "FailureTarget"}
COMPLETE = condition("Complete", "CompletionsReached")


def disrupted(reason: str, message: str = ""):
    return condition("DisruptionTarget", reason, message)


def look(*pods, of=None, events=()):
    return diagnose(of or job(LIMIT), list(pods), list(events))


def test_success_is_the_condition_complete_and_nothing_else():
    assert look(pod(0, "Succeeded", ended(0)), of=job(COMPLETE)).state is State.SUCCEEDED
    met = condition("SuccessCriteriaMet", "CompletionsReached")
    assert look(pod(0, "Succeeded", ended(0)), of=job(met)).state is State.RUNNING
    denied = COMPLETE | {"status": "False"}
    assert look(pod(0, "Running", RUNNING), of=job(denied)).state is State.RUNNING


@pytest.mark.parametrize("kind", errors.leaves(), ids=lambda kind: kind.__name__)
def test_a_last_word_of_a_stage_is_believed(kind):
    state = told("what went wrong", kind.exit_code, retriable=kind.retriable)
    found = look(failed_pod(0, state), of=job(POLICY))
    assert found.state is State.FAILED
    assert (found.exit_code, found.retriable) == (kind.exit_code, kind.retriable)
    assert found.message == f"pod {NAME}-0-abcde: what went wrong"
    assert found.excused is (kind is errors.Preempted)


@pytest.mark.parametrize("kind", errors.leaves(), ids=lambda kind: kind.__name__)
def test_without_a_last_word_our_exit_code_still_says_what_it_was(kind):
    lines = (
        '{"level": "info", "message": "begin"}\n{"level": "error", "message": "StoreRefused: no"}\n'
    )
    found = look(failed_pod(0, ended(kind.exit_code, lines)), of=job(POLICY))
    assert (found.exit_code, found.retriable) == (kind.exit_code, kind.retriable)
    assert found.message.endswith(f"ended with exit code {kind.exit_code}: …StoreRefused: no")


def test_a_command_line_that_the_image_does_not_know_is_not_tried_again():
    found = look(failed_pod(0, ended(2, "Error: No such option: --request")), of=job(POLICY))
    assert (found.exit_code, found.retriable) == (errors.ClusterError.exit_code, False)
    assert "No such option: --request" in found.message


def test_another_container_s_exit_code_means_nothing_here():
    state = failed_pod(0, ended(0), others={"proxy": ended(3, "gone")})
    found = look(state)
    assert (found.exit_code, found.retriable) == (errors.WorkerLost.exit_code, True)


def test_out_of_memory_names_the_limit_and_what_to_change_and_is_not_tried_again():
    found = look(failed_pod(2, ended(137, reason="OOMKilled")), of=job(count=4))
    assert (found.state, found.exit_code) == (State.FAILED, errors.OutOfMemory.exit_code)
    assert not found.retriable
    assert found.message.startswith(
        f"shard 2, pod {NAME}-2-abcde: out of memory: it used more than its limit of 16Gi"
    )
    assert "resources.limits.memory" in found.message


def test_a_sidecar_s_own_limit_is_named_when_it_was_the_sidecar():
    dead = failed_pod(0, ended(143), others={"proxy": ended(137, reason="OOMKilled")})
    dead["spec"]["containers"][1]["resources"] = {"limits": {"memory": "64Mi"}}
    assert "out of memory" not in look(dead).message
    dead["status"]["containerStatuses"].pop(0)
    assert "its limit of 64Mi" in look(dead).message


def test_a_native_sidecar_that_is_ended_after_the_stage_does_not_hide_why_the_stage_failed():
    dead = failed_pod(0, told("query 7: the image is corrupt", 4, retriable=False))
    dead["status"]["initContainerStatuses"] = [
        {"name": "proxy", "image": "proxy:1", "state": ended(137), "lastState": ended(1)}
    ]
    found = look(dead, of=job(POLICY))
    assert found.exit_code == errors.DataError.exit_code
    assert "query 7" in found.message


def test_an_init_container_that_fails_is_told():
    dead = failed_pod(0, {"waiting": {"reason": "PodInitializing"}})
    dead["status"]["initContainerStatuses"] = [
        {"name": "fetch", "image": "i", "state": ended(1, "no route to host"), "lastState": {}}
    ]
    assert "no route to host" in look(dead).message


DISRUPTIONS = {
    "PreemptionByScheduler": "a pod of higher priority",
    "DeletionByTaintManager": "its node got a taint",
    "EvictionByEvictionAPI": "its node is being emptied",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "ran short of resources or shut down",
    "SomethingNew": "disrupted: a message",
}


@pytest.mark.parametrize(("reason", "words"), DISRUPTIONS.items(), ids=DISRUPTIONS)
def test_a_disruption_is_excused_and_said(reason, words):
    found = look(
        failed_pod(1, ended(143), disrupted(reason, "a message")), of=job(LIMIT, component="train")
    )
    assert (found.state, found.excused, found.retriable) == (State.FAILED, True, True)
    assert found.exit_code == errors.Preempted.exit_code
    assert words in found.message


def test_an_evicted_pod_says_what_the_node_ran_short_of():
    status = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    dead = failed_pod(0, {}, status=status)
    found = look(dead)
    assert "evicted: The node was low on resource: memory." in found.message
    assert (found.exit_code, found.retriable) == (errors.WorkerLost.exit_code, True)


def test_a_pod_that_vanished_and_one_that_was_killed_are_lost_workers():
    gone = failed_pod(0, None)
    assert "vanished without a word" in look(gone).message
    killed = look(failed_pod(0, ended(137)))
    assert killed.message.endswith("killed (exit code 137)")
    assert (killed.exit_code, killed.retriable) == (errors.WorkerLost.exit_code, True)


def test_a_container_that_cannot_start_says_why():
    state = ended(128, 'exec: "mstarctl": executable file not found in $PATH', reason="StartError")
    assert 'the container cannot start: exec: "mstarctl"' in look(failed_pod(0, state)).message


def test_a_crash_shows_the_end_of_what_was_printed():
    found = look(
        failed_pod(0, ended(139, "line\n" * 100 + "Fatal Python error:\n Segmentation fault"))
    )
    assert found.message.endswith("Fatal Python error: Segmentation fault")
    assert len(found.message) < 450


def test_a_failed_job_without_pods_tells_its_own_condition_and_the_last_warning():
    warning = event(NAME, "FailedCreate", "no place")
    found = look(events=[warning])
    assert found.message == "the Job failed: Job has reached the specified backoff limit (no place)"
    assert found.retriable
    bare = condition("Failed", "DeadlineExceeded")
    assert look(of=job(bare)).message == "the Job failed: DeadlineExceeded"


CULPRIT = failed_pod(3, told("shard 3 is corrupt", 6, retriable=False, at=40), suffix="guilty")
BYSTANDERS = [
    failed_pod(0, ended(137, at=10)),
    failed_pod(1, ended(137, at=41)),
    failed_pod(2, told("asked to stop", 14, retriable=True, at=42)),
    failed_pod(4, told("the bucket is gone", 7, retriable=True, at=5)),
    failed_pod(5, ended(143, at=1), disrupted("PreemptionByScheduler")),
]


def test_what_cannot_pass_is_the_culprit_among_all_others_in_any_order():
    for pods in itertools.permutations([CULPRIT, *BYSTANDERS]):
        found = look(*pods, of=job(POLICY, count=6))
        assert found.exit_code == errors.IntegrityError.exit_code
        assert found.message.startswith(f"shard 3, pod {NAME}-3-guilty")
        assert not found.retriable


GANG = job(LIMIT, component="train", count=3)
ASKED = [failed_pod(rank, told("asked to stop", 14, retriable=True, at=50)) for rank in (1, 2)]


@pytest.mark.parametrize(
    "state",
    [
        ended(137),
        ended(139, "Segmentation fault"),
        told("lost rank 2", 13, retriable=True),
        ended(1),
    ],
    ids=["killed", "crashed", "told", "without a word"],
)
def test_who_only_went_as_he_was_asked_is_not_blamed_for_the_end_of_the_gang(state):
    found = look(*ASKED, failed_pod(0, state, suffix="guilty"), of=GANG)
    assert "guilty" in found.message
    assert not found.excused
    assert found.retriable


def test_a_gang_that_lost_a_rank_to_a_disruption_is_excused_though_its_peers_fail_of_it():
    drained = failed_pod(
        1, told("asked to stop", 14, retriable=True, at=20), disrupted("EvictionByEvictionAPI")
    )
    peer = failed_pod(0, told("lost contact with rank 1", 13, retriable=True, at=19))
    found = look(peer, drained, of=GANG)
    assert found.excused
    assert found.message.startswith(f"shard 1, pod {NAME}-1")


def test_a_gang_that_was_asked_to_go_by_somebody_is_excused():
    assert look(*ASKED, of=GANG).excused


def test_of_several_killed_ranks_the_first_is_named():
    found = look(*(failed_pod(rank, ended(137, at=30 - rank)) for rank in range(3)), of=GANG)
    assert found.message.startswith(f"shard 2, pod {NAME}-2")


def test_an_index_that_used_up_its_tries_counts_and_says_how_often():
    tries = [
        failed_pod(2, told("the bucket is gone", 7, retriable=True, at=at), suffix=f"try-{at}")
        for at in (10, 20, 30)
    ]
    others = [
        failed_pod(0, ended(143, at=1), disrupted("DeletionByTaintManager"), suffix="moved"),
        failed_pod(1, told("asked to stop", 14, retriable=True, at=31), suffix="asked"),
        failed_pod(2, ended(143, at=2), disrupted("PreemptionByScheduler"), suffix="preempted"),
        failed_pod(3, ended(137, at=5), suffix="once"),
    ]
    for order in (tries + others, others + tries):
        found = look(*order, of=job(INDEXES, failed="2"))
        assert (found.exit_code, found.retriable) == (errors.StepFailed.exit_code, False)
        assert not found.excused
        assert found.message.startswith(
            "it failed 3 times, as often as limits.attempts allows; shard 2"
        )
        assert "the bucket is gone" in found.message


def test_failed_indexes_are_read_as_ranges():
    found = look(
        failed_pod(1, ended(137, at=1)),
        failed_pod(4, ended(1, "boom", at=9)),
        of=job(INDEXES, failed="3-5,7"),
    )
    assert found.message.startswith("it failed once")
    assert "shard 4" in found.message


def test_an_index_that_somebody_else_ended_again_and_again_is_excused():
    asked = [
        failed_pod(1, told("asked to stop", 14, retriable=True, at=at), suffix=str(at))
        for at in (1, 2, 3)
    ]
    assert look(*asked, of=job(INDEXES, failed="1")).excused


def test_a_job_that_is_about_to_fail_still_runs_and_names_its_culprit():
    found = look(CULPRIT, pod(0, "Running", RUNNING), of=job(TARGET))
    assert found.state is State.RUNNING
    assert found.message.endswith("shard 3 is corrupt; the attempt is ending")


def test_an_image_is_part_of_no_failure_message():
    assert IMAGE not in look(failed_pod(0, ended(1))).message
