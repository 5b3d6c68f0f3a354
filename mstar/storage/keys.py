"""Every key the project stores under, in one place.

datasets/<id>/manifest.json            the commit
datasets/<id>/files.<random>/<part>    what one import wrote
models/<id>/manifest.json              and files.<random>/ likewise
steps/<task hash>/task.json            what the step was asked to do
steps/<task hash>/claim.json           which run is making it, for others to wait
steps/<task hash>/manifest.json        the commit: put once, never changed
steps/<task hash>/attempt-<n>.<random>/<part>   what attempt n wrote; nobody else writes there
steps/<task hash>/shards/<i>-of-<n>/manifest.json
steps/<task hash>/progress/<k>-<n>.json  a checkpoint inside the step by attempt n; its parts in <k>-<n>.<random>/
steps/<task hash>/progress/live/losses.json  the losses of a train step so far, for whoever watches
runs/<name>/spec.json                  the resolved spec
runs/<name>/history/0007-iter-02-train.json
runs/<name>/lease/000001.json          one for each holder, the highest number holds
runs/<name>/cancel.json                a request to stop, kept until the run is resumed
runs/<name>/status.json                what the controller last saw
runs/<name>/how.json                   the parts of the spec that change no results, as last given
runs/<name>/place.json                 where it was last started: which cluster and namespace
runs/<name>/jobs/<job>/request.json    what a Job in a cluster is asked to do; progress-<i>.json beside it
runs/<name>/logs/0007-iter-02-train.<attempt>.log
runs/<name>/tensorboard/events.out.tfevents.<step>.<first>-<last>  the run's curves, a share of a step's points each
runs/<name>/tracking/<tracker>-<hash>.json  what another tracker has been told; lease/ beside it: by whom
runs/<name>/analysis/<task hash>.json  a step that an analysis of the run rests on
verdicts/<hash>.json                   what a judge said, by what it was asked
"""

from mstar.errors import StorageError
from mstar.storage.manifest import ArtifactKind

_FOLDERS: dict[ArtifactKind, str] = {"step": "steps", "dataset": "datasets", "model": "models"}


TEMPORARY = ".tmp-"
"""How the name of a file that is still being written begins; no segment of a key may."""


def checked(key: str) -> str:
    """The key, if every store can hold it; StorageError otherwise."""
    if problem := _problem(key):
        raise StorageError(
            f"{key!r} cannot be a key: {problem}. A key is a path such as 'steps/abc/manifest.json': "
            "segments joined by single slashes, none of them '.' or '..'"
        )
    return key


def checked_prefix(prefix: str) -> str:
    """What the keys below the folder ``prefix`` begin with: ``prefix/``, or nothing for the whole store."""
    return f"{checked(prefix)}/" if prefix else ""


def _problem(key: str) -> str | None:
    if not key:
        return "it is empty"
    if "\\" in key or not key.isprintable():
        return "it holds a backslash or an unprintable character"
    segments = key.split("/")
    if "" in segments:
        return "it has an empty segment"
    if "." in segments or ".." in segments:
        return "it has a '.' or '..' segment"
    if any(segment.startswith(TEMPORARY) for segment in segments):
        return f"names that begin with {TEMPORARY!r} are those of unfinished files"
    return None


def artifact(kind: ArtifactKind, identity: str) -> str:
    """Folder of an artifact."""
    return f"{_FOLDERS[kind]}/{identity}"


def manifest(kind: ArtifactKind, identity: str) -> str:
    """Key whose existence means that the artifact is complete."""
    return f"{artifact(kind, identity)}/manifest.json"


def task(identity: str) -> str:
    """Key of a step's task record."""
    return f"steps/{identity}/task.json"


def claim(identity: str) -> str:
    """Key that names the run which is making a step."""
    return f"steps/{identity}/claim.json"


def attempt(identity: str, name: str) -> str:
    """Folder of one attempt at a step, to which its writer gives a random ending."""
    return f"steps/{identity}/attempt-{name}"


def progress(identity: str) -> str:
    """Folder of the checkpoints inside a step that is not finished."""
    return f"steps/{identity}/progress"


def live(identity: str) -> str:
    """Key of the losses so far of a train step that is not finished; it goes with the checkpoints inside the step."""
    return f"{progress(identity)}/live/losses.json"


def content(kind: ArtifactKind, identity: str) -> str:
    """Folder of what one import of a data set or model writes, to which its writer gives a random ending."""
    return f"{artifact(kind, identity)}/files"


def shard(identity: str, index: int, count: int) -> str:
    """Folder of one shard of a step."""
    return artifact("step", shard_id(identity, index, count))


def shard_id(identity: str, index: int, count: int) -> str:
    """A shard's own identity: it is committed as a step of this name is, so every other function here serves it."""
    return f"{identity}/shards/{index:05d}-of-{count:05d}"


def run(name: str) -> str:
    """Folder of a run."""
    return f"runs/{name}"


def spec(name: str) -> str:
    """Key of a run's resolved spec."""
    return f"runs/{name}/spec.json"


def history(name: str, index: int, step: str) -> str:
    """Key of the ``index``-th finished step of a run."""
    return f"runs/{name}/history/{index:04d}-{step.replace('/', '-')}.json"


def lease(name: str, epoch: int) -> str:
    """Key of the ``epoch``-th holder of a run."""
    return f"runs/{name}/lease/{epoch:06d}.json"


def cancel(name: str) -> str:
    """Key of a run's request to stop."""
    return f"runs/{name}/cancel.json"


def status(name: str) -> str:
    """Key of what a run's controller last saw."""
    return f"runs/{name}/status.json"


def request(name: str, job: str) -> str:
    """Key of what one of a run's Jobs is asked to do."""
    return f"runs/{name}/jobs/{job}/request.json"


def pod_progress(request_key: str, shard: int) -> str:
    """Key of how far one pod of a Job is, beside its request."""
    return f"{request_key.rpartition('/')[0]}/progress-{shard:05d}.json"


def how(name: str) -> str:
    """Key of how a run is to run now: the parts of its spec that do not change results."""
    return f"runs/{name}/how.json"


def place(name: str) -> str:
    """Key of where a run was last started."""
    return f"runs/{name}/place.json"


def log(name: str, index: int, step: str, attempt_name: str) -> str:
    """Key of the log of one attempt at a run's step."""
    return f"runs/{name}/logs/{index:04d}-{step.replace('/', '-')}.{attempt_name}.log"


def events(name: str) -> str:
    """Folder of a run's TensorBoard event files."""
    return f"runs/{name}/tensorboard"


def tracking(name: str) -> str:
    """Folder of what a run's other trackers have been told."""
    return f"runs/{name}/tracking"


def analyses(name: str) -> str:
    """Folder of the notes on what a run's analyses rest on."""
    return f"runs/{name}/analysis"


def analysis(name: str, identity: str) -> str:
    """Key of the note that an analysis of a run rests on a step."""
    return f"{analyses(name)}/{identity}.json"


def verdict(identity: str) -> str:
    """Key of what a judge said to one question."""
    return f"verdicts/{identity}.json"
