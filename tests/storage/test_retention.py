"""What may be deleted, on made-up stores: never what a run needs, never what is young, all that is left."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest, Ref, canonical_json, sha256
from mstar.storage.memory import MemoryStore
from mstar.storage.retention import (
    INSIDE,
    NOTES,
    PROBES,
    SPENT,
    SUPERSEDED,
    UNNAMED,
    Inventory,
    Plan,
    Roots,
    artifact_of,
    decide,
    is_manifest,
    reachable,
)
from mstar.storage.sweep import take_inventory

OLD, YOUNG, BEFORE = 100.0, 2000.0, 1000.0


class World:
    """A store whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = OLD
        self.store = MemoryStore(clock=lambda: self.now)

    def put(self, key: str, data: bytes = b"x", *, at: float = OLD) -> None:
        self.now = at
        self.store.put(key, data)

    def step(
        self,
        name: str,
        *,
        inputs: tuple[Manifest, ...] = (),
        parts: tuple[str, ...] = ("part",),
        shards: int = 0,
        commit: bool = True,
        at: float = OLD,
    ) -> Manifest:
        """A step with its task record; uncommitted, it has its shards and an attempt."""
        self.now = at
        identity = sha256(name.encode())
        task = {"inputs": [Ref.of(each).model_dump() for each in inputs]}
        self.put(keys.task(identity), canonical_json(task), at=at)
        adopted = []
        for index in range(shards):
            with ArtifactWriter(self.store, keys.shard_id(identity, index, shards), "1") as shard:
                adopted.append(shard.add_bytes(f"{index}/rows", name.encode()))
                shard.commit()
        writer = ArtifactWriter(self.store, identity, "1")
        for called in parts:
            writer.add_bytes(called, name.encode())
        for part in adopted:
            writer.adopt(part)
        if commit:
            return writer.commit(inputs=[each.digest for each in inputs]).manifest
        return Manifest(kind="step", id=identity, parts=())

    def inventory(self) -> Inventory:
        return take_inventory(self.store)

    def delete(self, plan: Plan) -> None:
        for doomed in plan.artifacts:
            for key in (*doomed.records, *doomed.others):
                self.store.delete(key)
        for each in plan.litter:
            self.store.delete(each.key)


def folder(manifest: Manifest) -> str:
    return keys.artifact(manifest.kind, manifest.id)


def needing(*manifests: Manifest, **others: frozenset[str]) -> Roots:
    return Roots(referenced=frozenset(map(folder, manifests)), **others)  # type: ignore[arg-type]


def reasons(plan: Plan) -> dict[str, str]:
    return {each.key: each.why for each in plan.litter}


def deleted(plan: Plan) -> set[str]:
    found = {key for each in plan.artifacts for key in (*each.records, *each.others)}
    return found | {each.key for each in plan.litter}


def test_what_no_run_refers_to_goes_and_what_it_was_made_from_with_it():
    world = World()
    first = world.step("first")
    second = world.step("second", inputs=(first,))
    plan = decide(world.inventory(), Roots(), before=BEFORE)
    assert {each.folder for each in plan.artifacts} == {folder(first), folder(second)}
    world.delete(plan)
    assert list(world.store.list("")) == []


def test_what_a_step_was_made_from_stays_with_it():
    world = World()
    first = world.step("first")
    second = world.step("second", inputs=(first,))
    third = world.step("third", inputs=(second,))
    other = world.step("other", inputs=(first,))
    plan = decide(world.inventory(), needing(third), before=BEFORE)
    assert [each.folder for each in plan.artifacts] == [folder(other)]


def test_inputs_are_found_by_the_task_record_where_a_step_is_not_committed():
    world = World()
    first = world.step("first")
    world.step("second", inputs=(first,), commit=False)
    pending = frozenset({f"steps/{sha256(b'second')}"})
    assert decide(world.inventory(), Roots(pending=pending), before=BEFORE).artifacts == ()


def test_the_young_stay_and_what_they_were_made_from():
    world = World()
    first = world.step("first")
    world.step("second", inputs=(first,), at=YOUNG)
    assert deleted(decide(world.inventory(), Roots(), before=BEFORE)) == set()


def test_attempts_that_lost_or_died_go_unless_they_are_young():
    world = World()
    step = world.step("step")
    died = f"{folder(step)}/attempt-2.dead/model/weights"
    working = f"{folder(step)}/attempt-3.work"
    world.put(died)
    world.put(f"{working}/first")
    world.put(f"{working}/second", at=YOUNG)  # the whole attempt is as young as its youngest part
    plan = decide(world.inventory(), needing(step), before=BEFORE)
    assert reasons(plan) == {died: UNNAMED}
    assert plan.artifacts == ()


def test_shards_of_another_split_go_once_the_step_is_committed():
    world = World()
    name, identity = "step", sha256(b"step")
    other = keys.shard_id(identity, 0, 3)
    with ArtifactWriter(world.store, other, "1") as shard:
        shard.add_bytes("0/rows", b"other")
        shard.commit()
    lost = f"steps/{other}/attempt-9.dead/0/rows"
    world.put(lost)
    before_commit = decide(
        world.inventory(), Roots(pending=frozenset({f"steps/{identity}"})), before=BEFORE
    )
    assert reasons(before_commit) == {lost: UNNAMED}
    step = world.step(name, shards=2)
    plan = decide(world.inventory(), needing(step), before=BEFORE)
    assert set(reasons(plan)) == set(world.store.list(f"steps/{other}"))
    assert set(reasons(plan).values()) == {SUPERSEDED}


def test_checkpoints_inside_a_step_go_when_it_is_committed_and_stay_until_then():
    world = World()
    done = world.step("done")
    waiting = f"steps/{sha256(b'waiting')}"
    for place in (folder(done), waiting):
        world.put(f"{place}/progress/00000010-1.json")
        world.put(f"{place}/progress/00000010-1/weights")
    roots = Roots(referenced=frozenset({folder(done)}), pending=frozenset({waiting}))
    plan = decide(world.inventory(), roots, before=BEFORE)
    assert reasons(plan) == dict.fromkeys(world.store.list(f"{folder(done)}/progress"), INSIDE)
    nobody = decide(world.inventory(), needing(done), before=BEFORE)
    assert [each.folder for each in nobody.artifacts] == [waiting]


def test_nothing_is_touched_where_a_controller_is_at_work():
    world = World()
    identity = sha256(b"step")
    world.step("step", commit=False, shards=1)
    held = Roots(pending=frozenset({f"steps/{identity}"}), held=frozenset({f"steps/{identity}"}))
    assert deleted(decide(world.inventory(), held, before=BEFORE)) == set()


def test_an_artifact_whose_manifest_cannot_be_read_is_left_alone_and_so_are_its_inputs():
    world = World()
    first = world.step("first")
    second = world.step("second", inputs=(first,))
    world.put(f"{folder(second)}/manifest.json", b"{")
    world.put(f"{folder(second)}/attempt-2.dead/part")
    assert deleted(decide(world.inventory(), Roots(), before=BEFORE)) == set()


def test_what_nobody_here_knows_is_left_alone_and_told():
    world = World()
    step = world.step("step")
    unknown = {"notes.txt", "elsewhere/a/b", "steps/stray", f"{folder(step)}/later/version"}
    for key in unknown:
        world.put(key)
    plan = decide(world.inventory(), needing(step), before=BEFORE)
    assert (deleted(plan), set(plan.unknown)) == (set(), unknown)


def test_optimizer_state_goes_only_from_steps_that_are_named():
    world = World()
    parts = ("model/weights", "trainer/optimizer", "trainer/rng", "losses.json")
    first, last = world.step("first", parts=parts), world.step("last", parts=parts)
    roots = needing(first, last, spent=frozenset({folder(first)}))
    plan = decide(world.inventory(), roots, before=BEFORE)
    assert set(reasons(plan).values()) == {SPENT}
    assert {key.partition("/trainer/")[2] for key in reasons(plan)} == {"optimizer", "rng"}
    assert all(key.startswith(folder(first)) for key in reasons(plan))


def test_probes_and_notes_of_finished_runs_go_and_runs_stay():
    world = World()
    for key in ("probe-1/race-0", "runs/a/jobs/j/request.json", "runs/a/spec.json"):
        world.put(key)
    world.put("runs/b/jobs/j/request.json")
    world.put("probe-2/race-0", at=YOUNG)
    plan = decide(world.inventory(), Roots(finished=frozenset({"a"})), before=BEFORE)
    assert reasons(plan) == {"probe-1/race-0": PROBES, "runs/a/jobs/j/request.json": NOTES}


def test_a_part_called_manifest_is_no_manifest():
    for key, expected in (
        ("steps/a/manifest.json", True),
        ("steps/a/shards/0-of-1/manifest.json", True),
        ("datasets/a/files.1/manifest.json", False),
        ("steps/a/shards/0-of-1/attempt-1.2/manifest.json", False),
        ("runs/a/manifest.json", False),
        ("manifest.json", False),
    ):
        assert is_manifest(key) is expected


@dataclass(frozen=True)
class Made:
    """One made-up step: which earlier ones it was made from, and what lies about in its folder."""

    inputs: frozenset[int]
    committed: bool
    shards: int
    at: float
    litter: tuple[tuple[str, float], ...]
    state: str  # how runs see it: none, referenced, pending or held


ages = st.sampled_from([OLD, YOUNG])
places = st.sampled_from(
    [
        "attempt-7.dead/part",
        "attempt-8.dead/trainer/x",
        "shards/00000-of-00005/attempt-1.dead/rows",
        "shards/00000-of-00005/odd/rows",
        "progress/00000001-1.json",
        "progress/00000001-1/weights",
        "odd/key",
    ]
)
made = st.builds(
    Made,
    inputs=st.frozensets(st.integers(0, 4), max_size=2),
    committed=st.booleans(),
    shards=st.integers(0, 2),
    at=ages,
    litter=st.lists(st.tuples(places, ages), max_size=3).map(tuple),
    state=st.sampled_from(["none", "none", "referenced", "pending", "held"]),
)


def build(steps: list[Made]) -> tuple[World, Roots, dict[str, str]]:
    world, states = World(), dict[str, str]()
    manifests: list[Manifest] = []
    for index, each in enumerate(steps):
        inputs = tuple(manifests[i] for i in sorted(each.inputs) if i < len(manifests))
        found = world.step(
            f"step {index}",
            inputs=inputs,
            parts=("model/weights", "trainer/optimizer"),
            shards=each.shards,
            commit=each.committed,
            at=each.at,
        )
        manifests.append(found)
        states[folder(found)] = each.state
        for place, at in each.litter:
            world.put(f"{folder(found)}/{place}", at=at)

    def named(*wanted: str) -> frozenset[str]:
        return frozenset(place for place, state in states.items() if state in wanted)

    roots = Roots(
        referenced=named("referenced"),
        pending=named("pending", "held"),
        held=named("held"),
        spent=frozenset(place for place in states if place[-1] < "8"),
    )
    return world, roots, states


@given(st.lists(made, max_size=5))
def test_nothing_that_is_needed_or_young_ever_goes(steps: list[Made]):
    world, roots, _ = build(steps)
    inventory = world.inventory()
    gone = deleted(decide(inventory, roots, before=BEFORE))
    kept = reachable(inventory, roots, before=BEFORE)
    assert roots.referenced | roots.pending <= kept
    for key, manifest in inventory.manifests.items():
        place = artifact_of(key)
        if place in kept and key == f"{place}/manifest.json":
            spent = place in roots.spent
            needed = {
                part.key for part in manifest.parts if not (spent and "/trainer/" in part.key)
            }
            assert not gone & ({key, f"{place}/task.json"} | needed)
        if place in kept and f"{place}/manifest.json" not in inventory.manifests:
            assert not gone & {key, *(part.key for part in manifest.parts)}  # committed shards
    for each in inventory.objects:
        if each.key in gone:
            assert each.modified < BEFORE
            assert artifact_of(each.key) not in roots.held


@given(st.lists(made, max_size=5))
def test_all_that_is_left_goes_at_once(steps: list[Made]):
    world, roots, _ = build(steps)
    world.delete(decide(world.inventory(), roots, before=BEFORE))
    assert deleted(decide(world.inventory(), roots, before=BEFORE)) == set()
    # Once nothing is young and no run is there, nothing at all stays.
    world.delete(decide(world.inventory(), Roots(), before=YOUNG + 1))
    assert list(world.store.list("")) == []


@given(st.lists(made, max_size=5), st.integers(0, 4))
def test_whoever_needs_more_loses_no_more(steps: list[Made], index: int):
    world, roots, states = build(steps)
    inventory = world.inventory()
    more = Roots(
        referenced=roots.referenced | frozenset(list(states)[index : index + 1]),
        pending=roots.pending,
        held=roots.held,
        spent=roots.spent,
    )
    with_more = {each.folder for each in decide(inventory, more, before=BEFORE).artifacts}
    assert with_more <= {each.folder for each in decide(inventory, roots, before=BEFORE).artifacts}
