"""Level 3: a judge must not be the one who needs the memory.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import io
import json
import zipfile

import numpy as np

from dojo.expect import expect_error
from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.competition import (
    Metrics,
    Refused,
    Submission,
    accuracy_of,
    answer,
    apply_recipe,
    describe,
    latency_ratio,
    pareto_front,
    read_frame,
    read_submission,
    rebuild,
    search,
    serve,
    write_frame,
    write_submission,
)
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

WRITE = Budget(
    "writing a submission of 4 arrays of 1 MiB",
    limit=2.5,
    reference=1.0,
    naive=5.0,
    unit="MiB, at the worst moment",
    naively="a version that puts the file together in memory",
)
READ = Budget(
    "reading a submission of 4 arrays of 1 MiB",
    limit=2.5,
    reference=1.0,
    naive=3.0,
    unit="times the memory of the arrays, at the worst moment",
    naively="a version that reads the file, then its members, then copies the arrays",
)
HOLD = Budget(
    "a submission of 4 arrays of 1 MiB that was read",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="times the memory of the arrays",
    naively="a version that keeps the file's bytes as well",
)
HOSTILE = Budget(
    "refusing a file whose headers promise 64 MiB",
    limit=4,
    reference=0.1,
    naive=64,
    unit="MiB, at the worst moment",
    naively="a version that makes room before it looks",
)
ARRIVE = Budget(
    "reading a frame of 1 MiB",
    limit=2.4,
    reference=1.0,
    naive=3.0,
    unit="times the memory of the array, at the worst moment",
    naively="a version that joins pieces and copies them",
)
SEND = Budget(
    "writing a frame of 1 MiB",
    limit=1.5,
    reference=0.0,
    naive=2.0,
    unit="times the memory of the array, at the worst moment",
    naively="a version that puts header and bytes together",
)
ANSWERS = Budget(
    "accuracy_of 4,096 images, activations of 16 MiB",
    limit=5.0,
    reference=2.1,
    naive=32.0,
    unit="MiB, at the worst moment",
    naively="a version that shows all images at once",
)
SERVED = Budget(
    "what a worker keeps of 16 answers of 256 KiB",
    limit=1.0,
    reference=0.1,
    naive=4.0,
    unit="MiB",
    naively="a worker that keeps its answers",
)
RATIO = Budget(
    "a latency_ratio over 16 batches of 1 MiB",
    limit=5.5,
    reference=3.0,
    naive=16.0,
    unit="MiB, at the worst moment",
    naively="a version that makes a list of the batches",
)
MODELS = Budget(
    "a search of 26 models of 256 KiB, beam 2",
    limit=7.6,
    reference=6.1,
    naive=26.0,
    unit="models at a time",
    naively="a search that keeps all models",
)
COPIES = Budget(
    "a recipe of four steps that work in place, model of 1 MiB",
    limit=1.6,
    reference=1.0,
    naive=2.0,
    unit="models, at the worst moment",
    naively="a version that copies before each step",
)
FRONT = Budget(
    "the front of 900 entries",
    limit=0.65,
    reference=0.16,
    naive=0.96,
    unit="MiB, at the worst moment",
    naively="a version that compares all with all at once",
)
DESCRIBED = Budget(
    "describing a model of 1 MiB",
    limit=0.5,
    reference=0.0,
    naive=1.0,
    unit="times the memory of the model",
    naively="a version that copies the arrays",
)


def mebibytes(count=1):
    return np.ones((count, 1 << 18), np.float32)


def submission():
    arrays = {f"{i}.weight": mebibytes() for i in range(4)}
    return Submission("large", "Ada", arrays, [{"kind": "relu"}])


# 20.12, 20.13: files


def test_a_file_is_written_array_by_array(tmp_path):
    given = submission()
    WRITE.check(peak_bytes(lambda: write_submission(tmp_path / "a.zip", given)) / MIB)


def test_arrays_of_any_layout_are_written_piece_by_piece(tmp_path):
    """A transposed one may be copied, but not all of them at once."""
    given = Submission(
        "t", "Ada", {f"{i}": mebibytes().reshape(512, 512).T for i in range(4)}, [{"kind": "relu"}]
    )
    WRITE.check(peak_bytes(lambda: write_submission(tmp_path / "a.zip", given)) / MIB)


def test_the_twin_that_writes_to_memory_first_is_caught(tmp_path):
    given = submission()

    def write():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, array in given.arrays.items():
                archive.writestr(name, array.tobytes())
        (tmp_path / "a.zip").write_bytes(stream.getvalue())

    WRITE.catches(peak_bytes(write) / MIB)


def test_a_file_is_read_without_a_second_copy(tmp_path):
    write_submission(tmp_path / "a.zip", submission())
    READ.check(peak_bytes(lambda: read_submission(tmp_path / "a.zip")) / (4 * MIB))
    HOLD.check(kept_bytes(lambda: read_submission(tmp_path / "a.zip")) / (4 * MIB))


def test_the_twin_that_reads_all_and_copies_is_caught(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in submission().arrays.items():
            archive.writestr(name, array.tobytes())

    def read(copied):
        raw = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        arrays = [np.frombuffer(member, np.float32) for member in members.values()]
        return [np.array(array) if copied else array for array in arrays], raw

    READ.catches(peak_bytes(lambda: read(True)) / (4 * MIB))
    HOLD.catches(kept_bytes(lambda: read(False)) / (4 * MIB))


def hostile(path, shape):
    about = {
        "format": 1,
        "name": "n",
        "author": "a",
        "layers": [{"kind": "relu"}],
        "recipe": [],
        "claims": None,
    }
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("submission.json", json.dumps(about))
        archive.writestr("arrays/a.npy", member.getvalue() + bytes(100))
    return path


def refuse(function):
    with expect_error(Refused):
        function()


def test_nobody_makes_room_for_what_is_only_promised(tmp_path):
    path = hostile(tmp_path / "a.zip", (64 << 20,))
    HOSTILE.check(peak_bytes(lambda: refuse(lambda: read_submission(path))) / MIB)


def test_nobody_reads_a_file_that_is_too_large(tmp_path):
    """64 MiB, of which none takes room on the disk; the first of them would tell nothing new."""
    path = tmp_path / "a.zip"
    with open(path, "wb") as stream:
        stream.truncate(64 << 20)
    HOSTILE.check(peak_bytes(lambda: refuse(lambda: read_submission(path, limit=1 << 20))) / MIB)


def test_nobody_unpacks_what_is_compressed(tmp_path):
    """64 MiB of zeros in 64 KiB."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("submission.json", b"0" * (64 << 20))
    HOSTILE.check(peak_bytes(lambda: refuse(lambda: read_submission(path))) / MIB)


def test_nobody_makes_room_for_a_frame_that_is_too_large():
    line = json.dumps({"dtype": "|u1", "shape": [64 << 20]}).encode() + b"\n"
    HOSTILE.check(peak_bytes(lambda: refuse(lambda: read_frame(io.BytesIO(line), limit=32 << 20))) / MIB)


def test_a_line_without_an_end_is_not_read_to_its_end():
    endless = io.BytesIO(b"x" * (16 << 20))
    HOSTILE.check(peak_bytes(lambda: (endless.seek(0), refuse(lambda: read_frame(endless)))) / MIB)


def test_the_twin_that_makes_room_first_is_caught():
    HOSTILE.catches(peak_bytes(lambda: np.empty(64 << 20, np.uint8)) / MIB)


def test_a_submission_is_built_without_keeping_the_file(tmp_path):
    """Described and built again: the arrays, and float32 parameters."""
    net = Sequential(Linear(512, 512, rng=np.random.default_rng(0)))
    DESCRIBED.check(kept_bytes(lambda: describe(net)) / MIB)
    layers, arrays = describe(net)
    assert kept_bytes(lambda: rebuild(layers, arrays)) / MIB < 1.5


def test_the_twin_that_describes_by_copies_is_caught():
    weight = mebibytes()
    DESCRIBED.catches(kept_bytes(weight.copy) / MIB)


# 20.14, 20.15: frames


class Nowhere(io.RawIOBase):
    def writable(self):
        return True

    def write(self, raw):
        return len(raw)


def test_a_frame_arrives_in_the_array_that_is_returned():
    stream = io.BytesIO()
    write_frame(stream, mebibytes())

    def read():
        stream.seek(0)
        return read_frame(stream)

    ARRIVE.check(peak_bytes(read) / MIB)


def test_a_frame_leaves_from_the_array_that_was_given():
    array, stream = mebibytes(), Nowhere()
    SEND.check(peak_bytes(lambda: write_frame(stream, array)) / MIB)
    SEND.check(peak_bytes(lambda: write_frame(stream, array.reshape(512, 512).T)) / MIB)


def test_the_twin_that_joins_and_copies_is_caught():
    raw = mebibytes().tobytes()

    def read():
        whole = b"".join([raw[:1000], raw[1000:]])
        return np.frombuffer(whole, np.float32).astype(np.float64)

    ARRIVE.catches(peak_bytes(read) / MIB)
    SEND.catches(peak_bytes(lambda: b"header" + mebibytes().tobytes()) / MIB)


def test_a_worker_keeps_no_answers():
    asked = io.BytesIO()
    for _ in range(16):
        write_frame(asked, np.zeros((1, 1), np.float32))

    def work():
        asked.seek(0)
        held = []

        def build():
            def model(images):
                held.append(tracked())
                return np.ones((1, 1 << 16), np.float32)

            return model

        serve(build, asked, Nowhere())
        return held

    import tracemalloc

    def tracked():
        return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0

    tracemalloc.start()
    try:
        held = work()
    finally:
        tracemalloc.stop()
    SERVED.check((held[-1] - held[0]) / MIB)


def test_the_twin_that_keeps_its_answers_is_caught():
    SERVED.catches(kept_bytes(lambda: [np.ones((1, 1 << 16), np.float32) for _ in range(16)]) / MIB)


# 20.4, 20.5: many images


def test_activations_are_those_of_one_batch():
    """1,024 numbers for each of 4,096 images are 16 MiB; of 256 images, one."""
    images = np.ones((4096, 4), np.float32)
    wide = np.ones((4, 1024), np.float32)

    def model(part):
        return np.maximum(part @ wide, 0)[:, :10]

    ANSWERS.check(peak_bytes(lambda: accuracy_of(model, images, np.zeros(4096, int))) / MIB)


def test_the_twin_that_shows_all_at_once_is_caught():
    images, wide = np.ones((4096, 4), np.float32), np.ones((4, 1024), np.float32)
    ANSWERS.catches(peak_bytes(lambda: np.maximum(images @ wide, 0)[:, :10].argmax(axis=1)) / MIB)


def test_there_are_never_many_batches_at_a_time():
    def race():
        batches = (mebibytes() * (i + 1) for i in range(16))
        return latency_ratio(lambda x: x[:, :2], lambda x: x[:, :2], batches, (iter(range(99)).__next__,) * 2)

    RATIO.check(peak_bytes(race) / MIB)


def test_the_twin_with_a_list_of_batches_is_caught():
    RATIO.catches(peak_bytes(lambda: [mebibytes() for _ in range(16)]) / MIB)


# 20.9, 20.10: models


class Heavy(Module):
    """A model of 256 KiB."""

    def __init__(self, numbers=1 << 16):
        self.done = ()
        self.weight = Parameter(np.ones(numbers, np.float32))


def adding(word):
    def recipe(model):
        model.done = (*model.done, word)
        return model

    return recipe


def test_a_search_lets_go_of_models_that_nobody_goes_on_from():
    """Five steps, beam 2: 1 + 5 + 8 + 6 + 4 + 2 = 26 are evaluated, and 2 * 2 + 1 held beside the first."""
    model, steps = Heavy(), list("abcde")
    count = []

    def evaluate(made):
        count.append(1)
        return Metrics(0.5, 1 / (1 + len(made.done)), 1, 1)

    peak = peak_bytes(lambda: search(model, steps, {s: adding(s) for s in steps}, evaluate, budget=99))
    assert len(count) == 2 * 26
    MODELS.check(peak / (KIB << 8))


def test_a_search_keeps_no_model_at_all():
    model, steps = Heavy(), list("abc")
    kept = kept_bytes(
        lambda: search(
            model, steps, {s: adding(s) for s in steps}, lambda made: Metrics(0.5, 1, 1, 1), budget=99
        )
    )
    assert kept / (KIB << 8) < 0.5


def test_the_twin_that_keeps_all_models_is_caught():
    MODELS.catches(peak_bytes(lambda: [Heavy() for _ in range(26)]) / (KIB << 8))


def test_a_recipe_copies_once():
    model = Heavy(1 << 18)
    COPIES.check(peak_bytes(lambda: apply_recipe(model, ["a"] * 4, {"a": adding("a")})) / MIB)


def test_the_twin_that_copies_before_each_step_is_caught():
    def steps():
        first = mebibytes()
        for _ in range(4):
            first = first.copy()
        return first

    COPIES.catches(peak_bytes(steps) / MIB)


# 20.7: the front


def entries(rng, count):
    return [Metrics(*row) for row in (rng.random((count, 4)) + 0.001).clip(max=1).tolist()]


def test_a_front_needs_no_table_of_all_with_all(rng):
    given = entries(rng, 900)
    FRONT.check(peak_bytes(lambda: pareto_front(given)) / MIB)


def test_the_twin_that_compares_all_with_all_is_caught(rng):
    table = rng.random((900, 4))
    FRONT.catches(peak_bytes(lambda: table[:, None, 0] <= table[:, 0]) / MIB)


def test_memory_of_a_front_grows_with_its_entries():
    probe = PROBES["pareto_front of n entries"]
    check_memory_growth(probe)


# 20.3: an answer


def test_an_answer_is_one_copy(rng):
    """The model gives a view of its own; what comes back is new, and nothing else stays."""
    x = mebibytes().reshape(512, 512)
    assert peak_bytes(lambda: answer(lambda images: images, x)) / MIB < 1.5
    assert retained_bytes(lambda: answer(lambda images: images, x)) / MIB < 0.1
