"""Mistakes in a framework that milestone 4 must notice, whatever the katas' own suites let through."""

import numpy as np

from dojo.mistakes import caught_by


@caught_by(1, kata="03")
def affine_forgets_the_bias(m):
    m.affine.forward = lambda x, weight, bias=None: x @ weight.T


@caught_by(1, kata="18")
def the_strongest_neurons_go(m):
    def strongest(scores, keep):
        return np.sort(np.argsort(scores)[:keep])

    m.strongest = strongest


@caught_by(1, kata="18")
def the_student_is_not_taught(m):
    m.distill = lambda *args, **options: [0.0]


@caught_by(1, kata="18")
def eight_bits_are_kept_in_sixteen(m):
    right = m.QuantizedLinear.__init__

    def init(self, linear, bits=8, per_channel=True, input_range=None):
        right(self, linear, bits, per_channel, input_range)
        self.weight = m.Buffer(self.weight.data.astype(np.int16))

    m.QuantizedLinear.__init__ = init


@caught_by(1, kata="18")
def integers_are_not_scaled_by_their_row(m):
    right = m.quantized_affine.forward
    m.quantized_affine.forward = lambda x, values, scale, bias=None: right(
        x, values, np.broadcast_to(scale.mean(), scale.shape) * np.linspace(0.2, 2.5, scale.size), bias
    )


@caught_by(1, kata="18")
def all_but_the_smallest_are_pruned(m):
    right = m.prune_global
    m.prune_global = lambda model, sparsity: right(model, 1 - sparsity)


@caught_by(1, kata="20")
def answers_are_rounded(m):
    right = m.answer
    m.answer = lambda model, images: np.rint(right(model, images))


@caught_by(1, kata="20")
def arrays_come_back_without_their_order(m):
    right = m._array

    def array(raw):
        got = right(raw)
        return got[::-1] if got.ndim == 2 else got

    m._array = array


@caught_by(2, kata="20")
def a_recipe_changes_the_model_it_is_given(m):
    right = m.copy
    m.copy = type("copy", (), {"deepcopy": staticmethod(lambda model: model), "copy": right.copy})


@caught_by(2, kata="20")
def a_ratio_the_wrong_way_round(m):
    right = m.latency_ratio

    def latency_ratio(*args, **options):
        found = right(*args, **options)
        return m.Latency(10.0 / found.ratio, found.ratios, found.answers)

    m.latency_ratio = latency_ratio


@caught_by(3, kata="20")
def claims_are_believed(m):
    m.broken_claims = lambda claimed, measured, tolerance=None: []


@caught_by(3, kata="20")
def one_batch_is_shown_again_and_again(m):
    right = m.verify

    def verify(path, baseline, draw, **options):
        once = draw(np.random.default_rng(0))
        return right(path, baseline, lambda rng: once, **options)

    m.verify = verify


@caught_by(3, kata="20")
def memory_is_what_tracemalloc_sees(m):
    right = m.verify
    m.verify = lambda *args, measure="resident", **options: right(*args, measure="traced", **options)


@caught_by(3, kata="20")
def files_of_any_size_are_read(m):
    right = m.read_submission
    m.read_submission = lambda path, limit=0: right(path, 1 << 40)


@caught_by(3, kata="20")
def a_damaged_leaderboard_is_begun_anew(m):
    right = m.Leaderboard.__init__

    def init(self, path):
        try:
            right(self, path)
        except m.DamagedLeaderboard:
            m.Path(path).unlink()
            right(self, path)

    m.Leaderboard.__init__ = init


@caught_by(3, kata="20")
def the_same_file_is_entered_twice(m):
    right = m.Leaderboard.add

    def add(self, entry):
        return right(self, entry) or right(
            self, m.Entry(f"{entry.digest}+", entry.name, entry.author, entry.metrics, entry.score)
        )

    m.Leaderboard.add = add


@caught_by(2, kata="20")
def a_score_is_the_arithmetic_mean(m):
    m.score = lambda metrics, baseline, floor=0.0: (
        sum(metrics.gains(baseline)) / 4 if metrics.accuracy >= floor else 0.0
    )


@caught_by(2, kata="20")
def what_is_below_the_floor_is_found_too(m):
    right = m.search
    m.search = lambda *args, floor=0.0, **options: right(*args, **options)


@caught_by(3, kata="20")
def code_is_run_unasked(m):
    right = m.verify
    m.verify = lambda *args, allow_code=False, **options: right(*args, allow_code=True, **options)


@caught_by(3, kata="20")
def an_entry_is_looked_for_first_and_entered_then(m):
    import time

    right = m.Leaderboard.add

    def add(self, entry):
        if any(entry.digest == one.digest for one in self.entries()):
            return False
        time.sleep(0.05)
        if not right(self, entry):
            raise RuntimeError("somebody was faster")
        return True

    m.Leaderboard.add = add


@caught_by(2, kata="20")
def weights_take_no_memory(m):
    right = m.peak_memory

    def peak_memory(build, images):
        model = build()
        return right(lambda: model, images)

    m.peak_memory = peak_memory
