"""Believable wrong solutions of kata 12.  Each takes the reference and spoils one thing in it."""

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Ids.


@caught_by(1)
def the_last_row_is_called_minus_one(m):
    def check_ids(ids, count):
        array = m.Tensor(ids).data
        if array.dtype.kind not in "iu":
            raise TypeError(f"{array.dtype}")
        if array.size and (array.max() >= count or array.min() < -count):
            raise ValueError(f"{array.min()} {array.max()} of {count}")
        return array.astype(np.intp, copy=False)

    m.check_ids = check_ids


@caught_by(1)
def the_number_of_rows_is_a_row(m):
    right = m.check_ids
    m.check_ids = lambda ids, count: right(ids, count + 1)


@caught_by(1)
def a_mask_is_ids(m):
    right = m.check_ids

    def check_ids(ids, count):
        array = m.Tensor(ids).data
        return right(array.astype(int) if array.dtype == bool else array, count)

    m.check_ids = check_ids


@caught_by(1)
def whole_floats_are_ids(m):
    right = m.check_ids

    def check_ids(ids, count):
        array = np.asarray(m.Tensor(ids).data)
        return right(array.astype(int) if array.dtype.kind == "f" else array, count)

    m.check_ids = check_ids


@caught_by(1)
def converted_before_looked_at(m):
    right = m.check_ids

    def check_ids(ids, count):
        array = m.Tensor(ids).data
        return right(array.astype(np.intp, copy=False) if array.dtype.kind in "iu" else array, count)

    m.check_ids = check_ids


@caught_by(1)
def no_ids_have_no_smallest(m):
    def check_ids(ids, count):
        array = m.Tensor(ids).data
        if array.dtype.kind not in "iu":
            raise TypeError(f"{array.dtype}")
        for extreme in (int(array.min()), int(array.max())):
            if not 0 <= extreme < count:
                raise ValueError(f"{extreme} of {count}")
        return array.astype(np.intp, copy=False)

    m.check_ids = check_ids


@caught_by(1)
def ids_are_always_copied(m):
    right = m.check_ids
    m.check_ids = lambda ids, count: right(ids, count).copy()


@caught_by(1)
def ids_stay_in_their_few_bits(m):
    right = m.check_ids

    def check_ids(ids, count):
        right(ids, count)
        return m.Tensor(ids).data

    m.check_ids = check_ids


@caught_by(1)
def the_message_names_the_count_only(m):
    right = m.check_ids

    def check_ids(ids, count):
        try:
            return right(ids, count)
        except ValueError:
            raise ValueError(f"there are only {count} rows") from None

    m.check_ids = check_ids


@caught_by(4)
def ids_are_looked_at_one_by_one(m):
    def check_ids(ids, count):
        array = np.asarray(m.Tensor(ids).data)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{array.dtype}")
        for i in array.reshape(-1).tolist():
            if not 0 <= i < count:
                raise ValueError(f"{i} of {count}")
        return array.astype(np.intp, copy=False)

    m.check_ids = check_ids


# Looking up.


@caught_by(1)
def ids_are_flattened(m):
    right = m.embedding.forward
    m.embedding.forward = lambda weight, ids, *, padding_idx=None: right(weight, np.ravel(ids))


@caught_by(1)
def the_padding_is_looked_up_as_zeros(m):
    right = m.embedding.forward

    def forward(weight, ids, *, padding_idx=None):
        out = right(weight, ids)
        if padding_idx is not None:
            out[np.asarray(ids) == padding_idx] = 0
        return out

    m.embedding.forward = forward


@caught_by(1)
def ids_are_taken_on_trust(m):
    m.embedding.forward = lambda weight, ids, *, padding_idx=None: weight[np.asarray(ids)]


@caught_by(1)
def a_table_of_one_axis_will_do(m):
    m.embedding.forward = lambda weight, ids, *, padding_idx=None: weight[m.check_ids(ids, len(weight))]


@caught_by(1)
def rows_come_out_as_float32(m):
    right = m.embedding.forward
    m.embedding.forward = lambda weight, ids, *, padding_idx=None: right(weight, ids).astype(np.float32)


@caught_by(1)
def ids_in_a_row_give_a_view(m):
    def forward(weight, ids, *, padding_idx=None):
        ids = m.check_ids(ids, len(weight))
        if weight.ndim != 2:
            raise ValueError(f"{weight.shape}")
        if ids.ndim == 1 and len(ids) and np.array_equal(ids, np.arange(ids[0], ids[0] + len(ids))):
            return weight[ids[0] : ids[0] + len(ids)]
        return weight[ids]

    m.embedding.forward = forward


@caught_by(3)
def looking_up_multiplies_by_ones_and_zeros(m):
    right = m.embedding.forward

    def forward(weight, ids, *, padding_idx=None):
        if weight.ndim != 2 or weight.dtype.kind != "f" or not np.isfinite(weight).all():
            return right(weight, ids)
        ids = m.check_ids(ids, len(weight))
        return (ids[..., None] == np.arange(len(weight))).astype(weight.dtype) @ weight

    m.embedding.forward = forward


@caught_by(4)
def rows_are_copied_one_by_one(m):
    right = m.embedding.forward

    def forward(weight, ids, *, padding_idx=None):
        right(weight, ids)
        ids = m.check_ids(ids, len(weight))
        out = np.empty((ids.size, weight.shape[1]), weight.dtype)
        for k, i in enumerate(ids.reshape(-1).tolist()):
            out[k] = weight[i]
        return out.reshape(*ids.shape, weight.shape[1])

    m.embedding.forward = forward


# Adding up.


def _add(m, add, check=True):
    """scatter_add by `add(total, rows, ids)`."""

    def scatter_add(rows, ids, count):
        ids = m.check_ids(ids, count)
        if rows.ndim != 2 or ids.shape != rows.shape[:1]:
            raise ValueError(f"{rows.shape} {ids.shape}")
        total = np.zeros((count, rows.shape[1]), rows.dtype)
        add(total, rows, ids)
        return total

    m.scatter_add = scatter_add


@caught_by(1)
def of_equal_ids_the_last_one_counts(m):
    def add(total, rows, ids):
        total[ids] += rows

    _add(m, add)


@caught_by(1)
def rows_are_put_not_added(m):
    def add(total, rows, ids):
        total[ids] = rows

    _add(m, add)


@caught_by(1)
def it_needs_no_id_for_each_row(m):
    def scatter_add(rows, ids, count):
        ids = m.check_ids(ids, count)
        total = np.zeros((count, rows.shape[-1]), rows.dtype)
        for i, row in zip(ids.reshape(-1), rows.reshape(-1, rows.shape[-1]), strict=False):
            total[i] += row
        return total

    m.scatter_add = scatter_add


@caught_by(1)
def sums_are_by_differences_of_running_sums(m):
    def add(total, rows, ids):
        order = np.argsort(ids, kind="stable")
        ends = np.cumsum(np.bincount(ids, minlength=len(total)))
        with np.errstate(invalid="ignore"):
            running = np.concatenate(
                (np.zeros_like(rows[:1]), np.cumsum(rows[order], axis=0, dtype=rows.dtype))
            )
            if len(rows):
                total[...] = np.diff(running[ends], axis=0, prepend=0)

    _add(m, add)


@caught_by(1)
def sums_are_products_with_ones_and_zeros(m):
    """0 * inf is nan."""

    def add(total, rows, ids):
        with np.errstate(invalid="ignore"):
            total[...] = (np.arange(len(total))[:, None] == ids).astype(rows.dtype) @ rows

    _add(m, add)


@caught_by(1)
def sums_come_out_in_float64(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        return right(rows.astype(np.float64) if rows.dtype.kind == "f" else rows, ids, count)

    m.scatter_add = scatter_add


@caught_by(1)
def an_odd_column_is_left_over(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        total = right(rows, ids, count)
        if rows.shape[1] % 2 and rows.shape[1] > 1:
            total[:, -1] = 0
        return total

    m.scatter_add = scatter_add


@caught_by(1)
def the_last_piece_is_left_out(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        whole = len(rows) // 1024 * 1024 if len(rows) > 1024 else len(rows)
        if rows.ndim != 2 or np.shape(ids) != rows.shape[:1]:
            return right(rows, ids, count)
        return right(rows[:whole], ids[:whole], count)

    m.scatter_add = scatter_add


@caught_by(1)
def the_first_row_is_the_result(m):
    """What comes back shares memory with what went in."""
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        if rows.ndim == 2 and np.array_equal(ids, np.arange(count)):
            return rows
        return right(rows, ids, count)

    m.scatter_add = scatter_add


@caught_by(1)
def all_is_added_in_float64(m):
    def scatter_add(rows, ids, count):
        ids = m.check_ids(ids, count)
        if rows.ndim != 2 or ids.shape != rows.shape[:1]:
            raise ValueError(f"{rows.shape} {ids.shape}")
        dim = rows.shape[1]
        places = (ids[:, None] * dim + np.arange(dim)).reshape(-1)
        weights = np.array(rows, np.float64).reshape(-1)
        kept = [weights.copy(), places.copy()]
        return np.bincount(kept[1], kept[0], count * dim).astype(rows.dtype).reshape(count, dim)

    m.scatter_add = scatter_add


@caught_by(4)
def rows_are_added_by_add_at(m):
    _add(m, lambda total, rows, ids: np.add.at(total, ids, rows))


@caught_by(4)
def rows_are_added_one_by_one(m):
    def add(total, rows, ids):
        for row, i in zip(rows, ids.tolist(), strict=True):
            total[i] += row

    _add(m, add)


# The rule.


def _rule(m, pull):
    m.embedding.gradient(pull)


@caught_by(1)
def the_padding_learns_too(m):
    def pull(grad, ids, input_shapes):
        return m.scatter_add(m.as_rows(grad), np.reshape(ids, -1), input_shapes[0][0])

    _rule(m, pull)


@caught_by(1)
def padding_0_is_no_padding(m):
    def pull(grad, ids, input_shapes, padding_idx):
        table = m.scatter_add(m.as_rows(grad), np.reshape(ids, -1), input_shapes[0][0])
        if padding_idx:
            table[padding_idx] = 0
        return table

    _rule(m, pull)


@caught_by(1)
def gradients_are_averaged_over_places(m):
    right = m.embedding_back

    def pull(grad, ids, input_shapes, padding_idx):
        times = np.bincount(m.check_ids(ids, input_shapes[0][0]).reshape(-1), minlength=input_shapes[0][0])
        table = right(grad, ids, input_shapes, padding_idx)
        return (table / np.maximum(times, 1)[:, None]).astype(grad.dtype)

    _rule(m, pull)


@caught_by(3)
def the_table_is_kept_for_its_number_of_rows(m):
    right = m.embedding_back
    _rule(m, lambda grad, weight, ids, padding_idx: right(grad, ids, (weight.shape,), padding_idx))


@caught_by(3)
def the_result_is_kept(m):
    right = m.embedding_back

    def pull(grad, out, ids, input_shapes, padding_idx):
        return right(grad.reshape(out.shape), ids, input_shapes, padding_idx)

    _rule(m, pull)


@caught_by(2)
def the_padding_is_taken_off_by_another_table(m):
    right = m.embedding_back

    def pull(grad, ids, input_shapes, padding_idx):
        table = right(grad, ids, input_shapes, None)
        mask = np.ones_like(table)
        if padding_idx is not None:
            mask[padding_idx] = 0
        return table * mask

    _rule(m, pull)


# Drawing.


@caught_by(1)
def a_draw_is_a_new_array(m):
    def normal_(tensor, std=1.0, *, rng):
        tensor.data = (std * rng.standard_normal(tensor.shape)).astype(tensor.dtype)
        m.increment_version(tensor.data)
        return tensor

    m.normal_ = normal_


@caught_by(1)
def the_write_goes_unnoted(m):
    def normal_(tensor, std=1.0, *, rng):
        tensor.data[...] = std * rng.standard_normal(tensor.shape)
        return tensor

    m.normal_ = normal_


@caught_by(1)
def std_is_a_variance(m):
    right = m.normal_
    m.normal_ = lambda tensor, std=1.0, *, rng: right(tensor, std**0.5, rng=rng)


@caught_by(1)
def a_draw_is_uniform(m):
    def normal_(tensor, std=1.0, *, rng):
        tensor.data[...] = std * 3**0.5 * (2 * rng.random(tensor.shape) - 1)
        m.increment_version(tensor.data)
        return tensor

    m.normal_ = normal_


@caught_by(1)
def a_float64_is_drawn_in_float32(m):
    def normal_(tensor, std=1.0, *, rng):
        tensor.data[...] = std * rng.standard_normal(tensor.shape, np.float32)
        m.increment_version(tensor.data)
        return tensor

    m.normal_ = normal_


@caught_by(1)
def a_draw_gives_nothing_back(m):
    right = m.normal_

    def normal_(tensor, std=1.0, *, rng):
        right(tensor, std, rng=rng)

    m.normal_ = normal_


# Some rows.


@caught_by(1)
def coalesced_in_order_of_appearance(m):
    def coalesce(self):
        ids = np.array(list(dict.fromkeys(self.ids.tolist())), np.int64)
        return m.SparseRows(ids, m.scatter_add(self.values, self.ids, self.shape[0])[ids], self.shape)

    m.SparseRows.coalesce = coalesce


@caught_by(1)
def coalesced_only_the_first_stays(m):
    def coalesce(self):
        ids, first = np.unique(self.ids, return_index=True)
        return m.SparseRows(ids, self.values[first], self.shape)

    m.SparseRows.coalesce = coalesce


@caught_by(3)
def coalesced_by_way_of_the_whole_table(m):
    def coalesce(self):
        ids = np.unique(self.ids)
        return m.SparseRows(ids, self.to_dense()[ids], self.shape)

    m.SparseRows.coalesce = coalesce


@caught_by(1)
def dense_rows_are_put_not_added(m):
    def to_dense(self):
        table = np.zeros(self.shape, self.values.dtype)
        table[self.ids] = self.values
        return table

    m.SparseRows.to_dense = to_dense


@caught_by(1)
def a_sum_of_rows_adds_values_place_by_place(m):
    right = m.SparseRows.__add__

    def add(self, other):
        if self.shape == other.shape and len(self.ids) == len(other.ids):
            return m.SparseRows(self.ids, self.values + other.values, self.shape)
        return right(self, other)

    m.SparseRows.__add__ = add


@caught_by(1)
def tables_of_any_number_of_rows_add_up(m):
    def add(self, other):
        if self.shape[1] != other.shape[1]:
            raise ValueError(f"{self.shape} {other.shape}")
        values = np.concatenate((self.values, other.values))
        return m.SparseRows(np.concatenate((self.ids, other.ids)), values, self.shape)

    m.SparseRows.__add__ = add


@caught_by(1)
def a_step_takes_the_last_of_equal_ids(m):
    def sgd_rows_(weight, rows, lr):
        if weight.shape != rows.shape:
            raise ValueError(f"{weight.shape} {rows.shape}")
        weight.data[rows.ids] -= lr * rows.values
        m.increment_version(weight.data)

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def a_step_goes_up(m):
    right = m.sgd_rows_
    m.sgd_rows_ = lambda weight, rows, lr: right(weight, rows, -lr)


@caught_by(1)
def a_step_goes_unnoted(m):
    def sgd_rows_(weight, rows, lr):
        if weight.shape != rows.shape:
            raise ValueError(f"{weight.shape} {rows.shape}")
        rows = rows.coalesce()
        weight.data[rows.ids] -= lr * rows.values

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def a_step_makes_a_new_weight(m):
    def sgd_rows_(weight, rows, lr):
        if weight.shape != rows.shape:
            raise ValueError(f"{weight.shape} {rows.shape}")
        weight.data = (weight.data - lr * rows.to_dense()).astype(weight.dtype)
        m.increment_version(weight.data)

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def a_step_scales_its_rows_in_place(m):
    right = m.sgd_rows_

    def sgd_rows_(weight, rows, lr):
        if weight.shape == rows.shape:
            rows.values[...] *= lr
            lr = 1
        right(weight, rows, lr)

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def rows_of_any_table_will_do(m):
    def sgd_rows_(weight, rows, lr):
        rows = rows.coalesce()
        weight.data[rows.ids] -= lr * rows.values
        m.increment_version(weight.data)

    m.sgd_rows_ = sgd_rows_


@caught_by(3)
def a_step_goes_through_the_whole_table(m):
    def sgd_rows_(weight, rows, lr):
        if weight.shape != rows.shape:
            raise ValueError(f"{weight.shape} {rows.shape}")
        weight.data -= (lr * rows.to_dense()).astype(weight.dtype)
        m.increment_version(weight.data)

    m.sgd_rows_ = sgd_rows_


# The layer.


def _built(m, change):
    """`change(layer, rng)` after a layer was made."""
    right = m.Embedding.__init__

    def init(self, num_embeddings, embedding_dim, padding_idx=None, sparse=False, *, rng):
        right(self, num_embeddings, embedding_dim, padding_idx, sparse, rng=rng)
        change(self, rng)

    m.Embedding.__init__ = init


@caught_by(1)
def rows_start_as_in_a_linear_layer(m):
    _built(m, lambda layer, rng: m.normal_(layer.weight, layer.weight.shape[1] ** -0.5, rng=rng))


@caught_by(1)
def the_padding_is_drawn_over(m):
    _built(m, lambda layer, rng: m.normal_(layer.weight, rng=rng))


@caught_by(1)
def the_column_of_the_padding_is_zero(m):
    right = m.Embedding.__init__

    def init(self, num_embeddings, embedding_dim, padding_idx=None, sparse=False, *, rng):
        right(self, num_embeddings, embedding_dim, None, sparse, rng=rng)
        if padding_idx is not None and not 0 <= padding_idx < num_embeddings:
            raise ValueError(f"{padding_idx} of {num_embeddings}")
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.weight.data[:, min(padding_idx, embedding_dim - 1)] = 0

    m.Embedding.__init__ = init


@caught_by(1)
def a_padding_counts_from_the_end_too(m):
    right = m.Embedding.__init__

    def init(self, num_embeddings, embedding_dim, padding_idx=None, sparse=False, *, rng):
        if padding_idx is not None and padding_idx < 0:
            padding_idx += num_embeddings
        right(self, num_embeddings, embedding_dim, padding_idx, sparse, rng=rng)

    m.Embedding.__init__ = init


@caught_by(1)
def a_table_is_lying_on_its_side(m):
    right = m.Embedding.__init__

    def init(self, num_embeddings, embedding_dim, padding_idx=None, sparse=False, *, rng):
        right(self, num_embeddings, embedding_dim, padding_idx, sparse, rng=rng)
        self.weight = m.Parameter(np.ascontiguousarray(self.weight.data.T))

    m.Embedding.__init__ = init


@caught_by(1)
def the_layer_forgets_its_padding_on_the_way(m):
    def forward(self, ids):
        if self.sparse and self.weight.requires_grad:
            return self.look_up_sparse(ids)
        return m.embedding(self.weight, ids)

    m.Embedding.forward = forward


@caught_by(1)
def rows_are_scaled_by_the_root_of_their_length(m):
    right = m.Embedding.forward
    m.Embedding.forward = lambda self, ids: right(self, ids) * float(self.weight.shape[1] ** 0.5)


@caught_by(1)
def sparse_is_dense_after_all(m):
    m.Embedding.forward = lambda self, ids: m.embedding(self.weight, ids, padding_idx=self.padding_idx)


@caught_by(1)
def a_frozen_table_learns_when_sparse(m):
    def forward(self, ids):
        if self.sparse:
            return self.look_up_sparse(ids)
        return m.embedding(self.weight, ids, padding_idx=self.padding_idx)

    m.Embedding.forward = forward


@caught_by(1)
def a_sparse_look_up_loses_the_shape_of_its_ids(m):
    right = m.Embedding.look_up_sparse
    m.Embedding.look_up_sparse = lambda self, ids: right(self, np.ravel(getattr(ids, "data", ids)))


def _hooked(m, arrived):
    """look_up_sparse, with `arrived(layer, rows)` for what comes back."""

    def look_up_sparse(self, ids):
        places = m.check_ids(ids, len(self.weight.data))
        distinct, which = np.unique(places, return_inverse=True)
        small = m.Tensor(self.weight.data[distinct], requires_grad=True)

        def hook(grad):
            learnt = distinct != (-1 if self.padding_idx is None else self.padding_idx)
            arrived(self, m.SparseRows(distinct[learnt], grad[learnt], self.weight.shape), distinct, grad)

        m.register_hook(small, hook)
        return m.embedding(small, which.reshape(places.shape))

    m.Embedding.look_up_sparse = look_up_sparse


@caught_by(1)
def the_last_look_up_is_all_that_counts(m):
    def arrived(layer, rows, distinct, grad):
        layer.rows = rows

    _hooked(m, arrived)


@caught_by(1)
def the_padding_is_among_the_sparse_rows(m):
    def arrived(layer, rows, distinct, grad):
        rows = m.SparseRows(distinct, grad, layer.weight.shape)
        layer.rows = rows if layer.rows is None else layer.rows + rows

    _hooked(m, arrived)


@caught_by(1)
def the_weight_gets_a_gradient_as_well(m):
    def arrived(layer, rows, distinct, grad):
        layer.rows = rows if layer.rows is None else layer.rows + rows
        layer.weight.grad = layer.rows.to_dense()

    _hooked(m, arrived)


@caught_by(3)
def a_dense_gradient_is_made_sparse(m):
    def look_up_sparse(self, ids):
        places = m.check_ids(ids, len(self.weight.data))
        leaf = m.Tensor(self.weight.data, requires_grad=True)

        def hook(grad):
            ids = np.unique(places)
            ids = ids[ids != (-1 if self.padding_idx is None else self.padding_idx)]
            rows = m.SparseRows(ids, grad[ids], self.weight.shape)
            self.rows = rows if self.rows is None else self.rows + rows

        m.register_hook(leaf, hook)
        return m.embedding(leaf, places)

    m.Embedding.look_up_sparse = look_up_sparse


@caught_by(1)
def what_is_looked_up_is_held_until_asked_for(m):
    def look_up_sparse(self, ids):
        places = m.check_ids(ids, len(self.weight.data))
        distinct, which = np.unique(places, return_inverse=True)
        small = m.Tensor(self.weight.data[distinct], requires_grad=True)
        self.waiting = [*getattr(self, "waiting", []), (distinct, small)]
        return m.embedding(small, which.reshape(places.shape))

    def sparse_grad(self):
        total = None
        still = []
        for ids, leaf in getattr(self, "waiting", []):
            if leaf.grad is None:
                still.append((ids, leaf))
                continue
            learnt = ids != (-1 if self.padding_idx is None else self.padding_idx)
            rows = m.SparseRows(ids[learnt], leaf.grad[learnt], self.weight.shape)
            total = rows if total is None else total + rows
        self.waiting = still
        return None if total is None else total.coalesce()

    m.Embedding.look_up_sparse = look_up_sparse
    m.Embedding.sparse_grad = sparse_grad


@caught_by(1)
def a_gradient_can_be_taken_twice(m):
    m.Embedding.sparse_grad = lambda self: None if self.rows is None else self.rows.coalesce()


@caught_by(1)
def what_is_taken_names_rows_twice(m):
    def sparse_grad(self):
        rows, self.rows = self.rows, None
        return rows

    m.Embedding.sparse_grad = sparse_grad


@caught_by(1)
def no_gradient_is_an_empty_one(m):
    right = m.Embedding.sparse_grad

    def sparse_grad(self):
        rows = right(self)
        if rows is None:
            dim = self.weight.shape[1]
            rows = m.SparseRows(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), self.weight.shape)
        return rows

    m.Embedding.sparse_grad = sparse_grad


# Positions that are added.


@caught_by(1)
def sines_first_then_cosines(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        angles = np.outer(np.arange(length), base ** -(np.arange(0, dim, 2) / dim))
        return np.concatenate((np.sin(angles), np.cos(angles)[:, : dim // 2]), axis=1).astype(np.float32)

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def cosines_at_even_columns(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        angles = np.outer(np.arange(length), base ** -(np.arange(0, dim, 2) / dim))
        table = np.empty((length, dim), np.float32)
        table[:, 0::2] = np.cos(angles)
        table[:, 1::2] = np.sin(angles[:, : dim // 2])
        return table

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def every_column_has_a_frequency_of_its_own(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        angles = np.outer(np.arange(length), base ** -(np.arange(dim) / max(dim, 1)))
        return np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def exponents_go_by_half_of_the_columns(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        angles = np.outer(np.arange(length), base ** -(np.arange((dim + 1) // 2) / max(dim, 1)))
        angles = np.repeat(angles, 2, axis=1)[:, :dim]
        return np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def positions_begin_at_one(m):
    right = m.sinusoidal_positions
    m.sinusoidal_positions = lambda length, dim, base=10_000.0: right(length + 1, dim, base)[1:]


@caught_by(1)
def the_base_is_always_ten_thousand(m):
    right = m.sinusoidal_positions
    m.sinusoidal_positions = lambda length, dim, base=10_000.0: right(length, dim)


@caught_by(1)
def waves_are_computed_in_float32(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        rates = (base ** -(np.arange(dim) // 2 * 2 / max(dim, 1))).astype(np.float32)
        angles = np.arange(length, dtype=np.float32)[:, None] * rates
        return np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def waves_come_out_in_float64(m):
    right = m.sinusoidal_positions
    m.sinusoidal_positions = lambda length, dim, base=10_000.0: right(length, dim, base).astype(np.float64)


@caught_by(4)
def waves_are_made_number_by_number(m):
    def sinusoidal_positions(length, dim, base=10_000.0):
        table = np.empty((length, dim), np.float32)
        for p in range(length):
            for c in range(dim):
                angle = p / base ** (c // 2 * 2 / dim)
                table[p, c] = np.cos(angle) if c % 2 else np.sin(angle)
        return table

    m.sinusoidal_positions = sinusoidal_positions


@caught_by(1)
def waves_are_saved_with_the_model(m):
    def init(self, dim, max_len):
        self.table = m.Parameter(m.sinusoidal_positions(max_len, dim))

    def forward(self, x, offset=0, positions=None):
        if positions is not None:
            return x + self.table.data[m.check_ids(positions, len(self.table.data))]
        return x + self.table.data[m.check_span(offset, x.shape[-2], len(self.table.data))]

    m.SinusoidalPositions.__init__ = init
    m.SinusoidalPositions.forward = forward


def _both(m, forward):
    """`forward(self, table, x, offset, positions)` for both kinds."""
    m.SinusoidalPositions.forward = lambda self, x, offset=0, positions=None: forward(
        self, self.table, x, offset, positions
    )
    m.LearnedPositions.forward = lambda self, x, offset=0, positions=None: forward(
        self, self.weight, x, offset, positions
    )


def _given(m, table, x, positions):
    return x + m.embedding(table, positions)


@caught_by(1)
def an_offset_changes_nothing(m):
    def forward(self, table, x, offset, positions):
        if positions is not None:
            return _given(m, table, x, positions)
        m.check_span(offset, x.shape[-2], table.shape[0])
        return x + table[: x.shape[-2]]

    _both(m, forward)


@caught_by(1)
def positions_go_by_the_first_axis(m):
    def forward(self, table, x, offset, positions):
        if positions is not None:
            return _given(m, table, x, positions)
        return x + table[m.check_span(offset, x.shape[0 if x.ndim < 3 else 1], table.shape[0])]

    _both(m, forward)


@caught_by(1)
def a_slice_may_end_early(m):
    def forward(self, table, x, offset, positions):
        if positions is not None:
            return _given(m, table, x, positions)
        return x + table[offset : offset + x.shape[-2]]

    _both(m, forward)


@caught_by(1)
def the_last_position_is_one_too_far(m):
    right = m.check_span

    def check_span(offset, length, max_len):
        return right(offset, length + 1, max_len) and slice(offset, offset + length)

    m.check_span = check_span


@caught_by(1)
def given_positions_are_counted_from_the_offset_anyway(m):
    def forward(self, table, x, offset, positions):
        return x + table[m.check_span(offset, x.shape[-2], table.shape[0])]

    _both(m, forward)


@caught_by(1)
def given_positions_are_taken_on_trust(m):
    def forward(self, x, offset=0, positions=None):
        if positions is not None:
            return x + self.table[np.asarray(positions)]
        return x + self.table[m.check_span(offset, x.shape[-2], len(self.table))]

    m.SinusoidalPositions.forward = forward


@caught_by(1)
def positions_are_added_in_place(m):
    right = m.SinusoidalPositions.forward

    def forward(self, x, offset=0, positions=None):
        out = right(self, x, offset, positions)
        if out.dtype == x.dtype:
            x.data[...] = out.data
        return out

    m.SinusoidalPositions.forward = forward


@caught_by(1)
def the_table_is_repeated_for_each_sequence(m):
    def forward(self, x, offset=0, positions=None):
        if positions is not None:
            return x + self.table[m.check_ids(positions, len(self.table))]
        rows = self.table[m.check_span(offset, x.shape[-2], len(self.table))]
        return x + np.broadcast_to(rows, x.shape).copy()

    m.SinusoidalPositions.forward = forward


@caught_by(1)
def learnt_positions_start_as_large_as_tokens(m):
    def init(self, max_len, dim, *, rng):
        self.weight = m.normal_(m.Parameter(np.empty((max_len, dim), np.float32)), rng=rng)

    m.LearnedPositions.__init__ = init


@caught_by(1)
def learnt_positions_do_not_learn(m):
    def forward(self, x, offset=0, positions=None):
        table = self.weight.data
        if positions is not None:
            return x + table[m.check_ids(positions, len(table))]
        return x + table[m.check_span(offset, x.shape[-2], len(table))]

    m.LearnedPositions.forward = forward


@caught_by(1)
def learnt_positions_are_dim_by_max_len(m):
    right = m.LearnedPositions.__init__
    m.LearnedPositions.__init__ = lambda self, max_len, dim, *, rng: right(self, dim, max_len, rng=rng)


# Rotations.


@caught_by(1)
def angles_go_by_half_of_the_pairs(m):
    def rotary_tables(length, head_dim, base=10_000.0):
        if head_dim % 2:
            raise ValueError(f"{head_dim}")
        angles = np.outer(np.arange(length), base ** -(np.arange(head_dim // 2) / max(head_dim, 1)))
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    m.rotary_tables = rotary_tables


@caught_by(1)
def an_odd_length_loses_its_last(m):
    right = m.rotary_tables
    m.rotary_tables = lambda length, head_dim, base=10_000.0: right(length, head_dim // 2 * 2, base)


@caught_by(1)
def angles_are_computed_in_float32(m):
    def rotary_tables(length, head_dim, base=10_000.0):
        if head_dim % 2:
            raise ValueError(f"{head_dim}")
        rates = (base ** -(np.arange(0, head_dim, 2) / max(head_dim, 1))).astype(np.float32)
        angles = np.arange(length, dtype=np.float32)[:, None] * rates
        return np.cos(angles), np.sin(angles)

    m.rotary_tables = rotary_tables


@caught_by(1)
def sines_come_before_cosines(m):
    right = m.rotary_tables
    m.rotary_tables = lambda length, head_dim, base=10_000.0: right(length, head_dim, base)[::-1]


def _turn(m, turned):
    """rotary, once the shapes have been looked at; `turned(x, cos, sin)`."""
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        out = right(x, cos=cos, sin=sin)
        return np.asarray(turned(m.floating(x), cos, sin), out.dtype)

    m.rotary.forward = forward


@caught_by(1)
def neighbours_are_turned_not_halves(m):
    def turned(x, cos, sin):
        out = np.empty_like(x)
        a, b = x[..., 0::2], x[..., 1::2]
        out[..., 0::2], out[..., 1::2] = a * cos - b * sin, b * cos + a * sin
        return out

    _turn(m, turned)


@caught_by(1)
def vectors_turn_the_other_way(m):
    right = m.rotary.forward
    m.rotary.forward = lambda x, *, cos, sin: right(x, cos=cos, sin=-sin)


@caught_by(1)
def the_second_half_is_turned_by_what_the_first_became(m):
    def turned(x, cos, sin):
        out = x.copy()
        half = x.shape[-1] // 2
        out[..., :half] = out[..., :half] * cos - out[..., half:] * sin
        out[..., half:] = out[..., half:] * cos + out[..., :half] * sin
        return out

    _turn(m, turned)


@caught_by(1)
def both_halves_are_turned_with_the_same_sign(m):
    def turned(x, cos, sin):
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * cos - b * sin, b * cos - a * sin), axis=-1)

    _turn(m, turned)


@caught_by(1)
def tables_decide_the_dtype(m):
    def forward(x, *, cos, sin):
        m_right(x, cos=cos, sin=sin)
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)

    m_right = m.rotary.forward
    m.rotary.forward = forward


@caught_by(1)
def a_row_of_tables_serves_all_positions(m):
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        if cos.shape[0] == 1 and x.ndim > 1:
            cos, sin = (np.repeat(t, x.shape[-2], axis=0) for t in (cos, sin))
        return right(x, cos=cos, sin=sin)

    m.rotary.forward = forward


@caught_by(1)
def vectors_are_turned_in_place(m):
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        out = right(x, cos=cos, sin=sin)
        if out.dtype == x.dtype and x.flags.writeable:
            x[...] = out
        return out

    m.rotary.forward = forward


@caught_by(3)
def vectors_turn_as_wide_complex_numbers(m):
    def turned(x, cos, sin):
        half = x.shape[-1] // 2
        z = x[..., :half].astype(np.complex128) + 1j * x[..., half:]
        w = z * (cos + 1j * sin)
        return np.concatenate((w.real, w.imag, z.real), axis=-1)[..., : 2 * half]

    _turn(m, turned)


@caught_by(4)
def vectors_turn_one_by_one(m):
    def turned(x, cos, sin):
        half = x.shape[-1] // 2
        out = np.empty_like(x)
        for place in np.ndindex(*x.shape[:-1]):
            a, b, c, s = x[place][:half], x[place][half:], cos[place[-1]], sin[place[-1]]
            out[place] = np.concatenate((a * c - b * s, b * c + a * s))
        return out

    _turn(m, turned)


@caught_by(2)
def the_gradient_turns_with_the_vector(m):
    m.rotary.gradient(lambda grad, cos, sin: m.rotary.forward(grad, cos=cos, sin=sin))


@caught_by(2)
def the_gradient_is_the_inverse_not_the_transpose(m):
    right = m.rotary_back

    def pull(grad, cos, sin):
        stretch = np.tile(cos * cos + sin * sin, 2)
        return (right(grad, cos, sin) / stretch).astype(grad.dtype)

    m.rotary.gradient(pull)


@caught_by(3)
def vectors_are_kept_for_their_dtype(m):
    right = m.rotary_back
    m.rotary.gradient(lambda grad, x, cos, sin: right(grad, cos, sin).astype(x.dtype))


def _rotary(m, forward):
    m.Rotary.forward = forward


@caught_by(1)
def a_rotation_forgets_its_offset(m):
    def forward(self, x, offset=0):
        m.check_span(offset, x.shape[-2], len(self.cos))
        return m.rotary(x, cos=self.cos[: x.shape[-2]], sin=self.sin[: x.shape[-2]])

    _rotary(m, forward)


@caught_by(1)
def a_rotation_may_begin_before_the_first(m):
    def forward(self, x, offset=0):
        span = np.arange(offset, offset + x.shape[-2])
        if span.size and span[-1] >= len(self.cos):
            raise ValueError(f"{offset} {len(self.cos)}")
        return m.rotary(x, cos=self.cos[span], sin=self.sin[span])

    _rotary(m, forward)


@caught_by(1)
def heads_and_positions_are_mixed_up(m):
    def forward(self, x, offset=0):
        span = m.check_span(offset, x.shape[-2], len(self.cos))
        half = self.cos.shape[1]
        cos, sin = self.cos[span], self.sin[span]
        if x.ndim == 4 and x.shape[1] <= len(self.cos):
            turned = m.rotary(
                m.Tensor(x.data.transpose(0, 2, 1, 3)),
                cos=self.cos[: x.shape[1], :half],
                sin=self.sin[: x.shape[1], :half],
            )
            return m.Tensor(turned.data.transpose(0, 2, 1, 3))
        return m.rotary(x, cos=cos, sin=sin)

    _rotary(m, forward)


@caught_by(1)
def the_base_of_a_rotation_is_fixed(m):
    def init(self, head_dim, max_len, base=10_000.0):
        self.cos, self.sin = m.rotary_tables(max_len, head_dim)

    m.Rotary.__init__ = init


@caught_by(1)
def angles_are_saved_with_the_model(m):
    right = m.Rotary.__init__

    def init(self, head_dim, max_len, base=10_000.0):
        right(self, head_dim, max_len, base)
        self.frequencies = m.Parameter(self.cos)

    m.Rotary.__init__ = init


# The head.


@caught_by(1)
def the_head_has_a_copy(m):
    right = m.TiedLinear.__init__

    def init(self, embedding):
        right(self, embedding)
        self.weight = m.Parameter(embedding.weight.data.copy())

    m.TiedLinear.__init__ = init


@caught_by(1)
def the_head_shares_the_array_not_the_parameter(m):
    right = m.TiedLinear.__init__

    def init(self, embedding):
        right(self, embedding)
        self.weight = m.Parameter(embedding.weight.data)

    m.TiedLinear.__init__ = init


@caught_by(1)
def the_head_does_not_add_to_the_gradient(m):
    m.TiedLinear.forward = lambda self, x: m.affine(x, self.weight.data)


@caught_by(1)
def the_head_goes_through_the_array(m):
    m.TiedLinear.forward = lambda self, x: m.Tensor(x.data @ self.weight.data.T)


@caught_by(1)
def a_sparse_table_gets_a_head(m):
    def init(self, embedding):
        self.weight = embedding.weight

    m.TiedLinear.__init__ = init


@caught_by(1)
def logits_are_scaled(m):
    right = m.TiedLinear.forward
    m.TiedLinear.forward = lambda self, x: right(self, x) * float(self.weight.shape[1] ** -0.5)


# Found by looking for ways past the suite


@caught_by(1)
def one_row_comes_out_as_a_view(m):
    right = m.embedding.forward

    def forward(weight, ids, *, padding_idx=None):
        i = m.check_ids(ids, len(weight))
        if weight.ndim == 2 and i.ndim == 0:
            return weight[i[()]]
        return right(weight, ids)

    m.embedding.forward = forward


@caught_by(1)
def integers_go_through_floats(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        if rows.dtype.kind in "iu":
            return right(rows.astype(m.np.float64), ids, count).astype(rows.dtype)
        return right(rows, ids, count)

    m.scatter_add = scatter_add


@caught_by(1)
def many_rows_add_up_in_float32(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        if rows.dtype == m.np.float64 and len(rows) > 100:
            return right(rows.astype(m.np.float32), ids, count).astype(m.np.float64)
        return right(rows, ids, count)

    m.scatter_add = scatter_add


@caught_by(4)
def rows_of_one_id_go_round_by_round(m):
    np = m.np

    def scatter_add(rows, ids, count):
        ids = m.check_ids(ids, count)
        if rows.ndim != 2 or ids.shape != rows.shape[:1]:
            raise ValueError(f"{rows.shape} {ids.shape}")
        out = np.zeros((count, rows.shape[1]), rows.dtype)
        left = np.arange(len(ids))
        while len(left):
            u, first = np.unique(ids[left], return_index=True)
            out[u] += rows[left[first]]
            left = np.delete(left, first)
        return out

    m.scatter_add = scatter_add


@caught_by(2)
def the_padding_is_multiplied_by_zero(m):
    def embedding_back(grad, ids, input_shapes, padding_idx):
        g = m.as_rows(grad)
        i = m.np.reshape(ids, -1)
        if padding_idx is not None:
            g = g * (i != padding_idx)[:, None].astype(g.dtype)
        return m.scatter_add(g, i, input_shapes[0][0])

    m.embedding.gradient(embedding_back)


# normal_


@caught_by(1)
def a_draw_takes_more_than_it_writes(m):
    right = m.normal_

    def normal_(tensor, std=1.0, *, rng):
        right(tensor, std, rng=rng)
        rng.standard_normal(3)
        return tensor

    m.normal_ = normal_


@caught_by(1)
def a_draw_seeds_a_stream_of_its_own(m):
    right = m.normal_

    def normal_(tensor, std=1.0, *, rng):
        return right(tensor, std, rng=m.np.random.default_rng(rng.integers(1 << 30)))

    m.normal_ = normal_


@caught_by(1)
def a_draw_spawns_a_stream(m):
    right = m.normal_

    def normal_(tensor, std=1.0, *, rng):
        return right(tensor, std, rng=rng.spawn(1)[0])

    m.normal_ = normal_


@caught_by(1)
def a_draw_goes_to_a_flat_copy(m):
    def normal_(tensor, std=1.0, *, rng):
        flat = tensor.data.reshape(-1)
        flat[:] = (
            rng.standard_normal(flat.shape, m.np.float64 if tensor.dtype == m.np.float64 else m.np.float32)
            * std
        )
        m.increment_version(tensor.data)
        return tensor

    m.normal_ = normal_


@caught_by(4)
def coalesced_row_by_row(m):
    np = m.np

    def coalesce(self):
        d = {}
        for i, v in zip(self.ids.tolist(), self.values, strict=True):
            if i in d:
                d[i] = d[i] + v
            else:
                d[i] = v.copy()
        ks = sorted(d)
        vals = np.array([d[k] for k in ks], self.values.dtype).reshape(len(ks), self.shape[1])
        return m.SparseRows(np.array(ks, self.ids.dtype), vals, self.shape)

    m.SparseRows.coalesce = coalesce


@caught_by(4)
def coalesced_by_looking_through_all_for_each(m):
    np = m.np

    def coalesce(self):
        ids = np.unique(self.ids)
        vals = np.empty((len(ids), self.shape[1]), self.values.dtype)
        for j, i in enumerate(ids):
            vals[j] = self.values[self.ids == i].sum(axis=0, dtype=self.values.dtype)
        return m.SparseRows(ids, vals, self.shape)

    m.SparseRows.coalesce = coalesce


# sgd_rows_


@caught_by(4)
def a_step_goes_row_by_row(m):
    def sgd_rows_(weight, rows, lr):
        if weight.shape != rows.shape:
            raise ValueError(f"{weight.shape} {rows.shape}")
        for i, v in zip(rows.ids.tolist(), rows.values, strict=True):
            weight.data[i] -= lr * v
        m.increment_version(weight.data)

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def a_step_makes_the_weight_contiguous(m):
    right = m.sgd_rows_

    def sgd_rows_(weight, rows, lr):
        if not weight.data.flags.c_contiguous:
            weight.data = m.np.ascontiguousarray(weight.data)
        right(weight, rows, lr)

    m.sgd_rows_ = sgd_rows_


@caught_by(1)
def a_sparse_table_is_drawn_twice(m):
    right = m.Embedding.__init__

    def __init__(self, n, d, padding_idx=None, sparse=False, *, rng):
        right(self, n, d, padding_idx, sparse, rng=rng)
        if sparse:
            m.normal_(self.weight, rng=rng)
        if padding_idx is not None:
            self.weight.data[padding_idx] = 0

    m.Embedding.__init__ = __init__


@caught_by(1)
def all_sparse_layers_hold_one_gradient(m):
    m.Embedding.shared = None
    right = m.Embedding.__init__

    def __init__(self, *a, **k):
        right(self, *a, **k)
        del self.__dict__["rows"]

    m.Embedding.__init__ = __init__
    m.Embedding.rows = property(
        lambda self: m.Embedding.shared, lambda self, v: setattr(m.Embedding, "shared", v)
    )


@caught_by(1)
def what_waits_is_a_parameter(m):
    right = m.Embedding.__init__
    from tinytorch.layers import Parameter

    def __init__(self, *a, **k):
        right(self, *a, **k)
        if self.sparse:
            self.pending = Parameter(m.np.zeros(1, m.np.float32))

    m.Embedding.__init__ = __init__


@caught_by(1)
def zero_grad_forgets_rows_that_wait(m):
    right = m.Module.zero_grad

    def zero_grad(self):
        right(self)
        self.rows = None

    m.Embedding.zero_grad = zero_grad


@caught_by(1)
def once_frozen_always_frozen(m):
    def forward(self, ids):
        if self.sparse and not self.weight.requires_grad:
            self.sparse_off = True
        if self.sparse and not getattr(self, "sparse_off", False):
            return self.look_up_sparse(ids)
        if self.sparse and self.weight.requires_grad:
            return m.Tensor(self.weight.data[m.check_ids(ids, len(self.weight.data))])
        return m.embedding(self.weight, ids, padding_idx=self.padding_idx)

    m.Embedding.forward = forward


@caught_by(1)
def looking_up_cleans_the_padding(m):
    right = m.Embedding.forward

    def forward(self, ids):
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0
        return right(self, ids)

    m.Embedding.forward = forward


# waves


@caught_by(1)
def waves_are_cached_and_shared(m):
    import functools

    m.sinusoidal_positions = functools.lru_cache(m.sinusoidal_positions)


@caught_by(1)
def angles_are_cached_and_shared(m):
    import functools

    m.rotary_tables = functools.lru_cache(m.rotary_tables)


@caught_by(1)
def an_offset_is_added_to_given_positions(m):
    right = m.SinusoidalPositions.forward

    def f(self, x, offset=0, positions=None):
        if positions is not None and offset:
            positions = m.np.asarray(positions) + offset
        return right(self, x, offset, positions)

    m.SinusoidalPositions.forward = f


@caught_by(1)
def turned_vectors_share_a_buffer(m):
    right = m.rotary.forward
    kept = {}

    def forward(x, *, cos, sin):
        out = right(x, cos=cos, sin=sin)
        k = (out.shape, out.dtype)
        if k in kept:
            kept[k][...] = out
        else:
            kept[k] = out
        return kept[k]

    m.rotary.forward = forward


@caught_by(1)
def what_does_not_turn_is_handed_back(m):
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        out = right(x, cos=cos, sin=sin)
        if x.ndim and x.shape[-2] == 1 and (m.np.asarray(sin) == 0).all():
            return x
        return out

    m.rotary.forward = forward


@caught_by(1)
def tables_are_remembered_by_their_id(m):
    right = m.rotary.forward
    kept = {}

    def forward(x, *, cos, sin):
        key = (id(cos), id(sin), cos.shape, m.floating(x).dtype)
        right(x, cos=cos, sin=sin)
        if key not in kept:
            kept[key] = (cos.copy(), sin.copy())
        c, s = kept[key]
        return right(x, cos=c, sin=s)

    m.rotary.forward = forward


@caught_by(1)
def nothing_turned_is_float64(m):
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        out = right(x, cos=cos, sin=sin)
        if out.size == 0:
            return out.astype(m.np.float64)
        return out

    m.rotary.forward = forward


@caught_by(3)
def angles_are_made_for_each_pass(m):
    def forward(self, x, offset=0):
        m.check_span(offset, x.shape[-2], len(self.cos))
        cos, sin = m.rotary_tables(len(self.cos), 2 * self.cos.shape[1], self.base)
        s = slice(offset, offset + x.shape[-2])
        return m.rotary(x, cos=cos[s], sin=sin[s])

    right = m.Rotary.__init__

    def __init__(self, head_dim, max_len, base=10_000.0):
        right(self, head_dim, max_len, base)
        self.base = base

    m.Rotary.__init__ = __init__
    m.Rotary.forward = forward


@caught_by(3)
def waves_are_made_for_each_pass(m):
    def forward(self, x, offset=0, positions=None):
        t = m.sinusoidal_positions(*self.table.shape)
        if positions is not None:
            return x + t[m.check_positions(positions, x.shape, len(t))]
        return x + t[m.check_span(offset, x.shape[-2], len(t))]

    m.SinusoidalPositions.forward = forward


@caught_by(3)
def the_head_keeps_its_table_transposed(m):
    right = m.TiedLinear.forward

    def forward(self, x):
        self.cached = m.np.ascontiguousarray(self.weight.data.T)
        return right(self, x)

    m.TiedLinear.forward = forward


@caught_by(1)
def positions_of_any_shape_will_do(m):
    rewritten(
        m,
        "SinusoidalPositions.forward",
        ("check_positions(positions, x.shape, len(self.table))", "check_ids(positions, len(self.table))"),
    )
    rewritten(
        m,
        "LearnedPositions.forward",
        ("check_positions(positions, x.shape, len(self.weight.data))", "positions"),
    )


@caught_by(1)
def all_but_floats_and_bools_are_ids(m):
    rewritten(m, "check_ids", ('array.dtype.kind not in "iu"', 'array.dtype.kind in "fb"'))


@caught_by(1)
def half_floats_are_ids(m):
    rewritten(
        m, "check_ids", ("array.dtype.kind not in", "array.dtype != np.float16 and array.dtype.kind not in")
    )


@caught_by(1)
def ids_are_looked_at_before_the_table(m):
    rewritten(
        m,
        "embedding",
        ("if weight.ndim != 2:", "ids = check_ids(ids, len(weight))\n    if weight.ndim != 2:"),
    )


@caught_by(1)
def all_integers_add_up_in_int64(m):
    right = m.scatter_add

    def scatter_add(rows, ids, count):
        return right(rows.astype(np.int64) if rows.dtype.kind in "iu" else rows, ids, count)

    m.scatter_add = scatter_add


@caught_by(2)
def rows_without_columns_cannot_be_counted(m):
    rewritten(m, "embedding_back", ("as_rows(grad)", "grad.reshape(-1, grad.shape[-1])"))


@caught_by(1)
def a_single_number_cannot_be_drawn(m):
    rewritten(m, "normal_", ("tensor.data[...] = drawn", "tensor.data[:] = drawn"))


@caught_by(1)
def no_deviation_is_the_usual_one(m):
    rewritten(m, "normal_", ("drawn *= std", "drawn *= std or 1.0"))


@caught_by(4)
def a_table_is_made_row_by_row(m):
    def to_dense(self):
        table = np.zeros(self.shape, self.values.dtype)
        for i, row in zip(self.ids, self.values, strict=True):
            table[i] += row
        return table

    m.SparseRows.to_dense = to_dense


@caught_by(3)
def a_sum_of_rows_goes_by_way_of_two_tables(m):
    right = m.SparseRows.__add__

    def add(self, other):
        ids = np.unique(right(self, other).ids)
        return m.SparseRows(ids, (self.to_dense() + other.to_dense())[ids], self.shape)

    m.SparseRows.__add__ = add


@caught_by(1)
def a_step_is_always_in_float32(m):
    rewritten(m, "sgd_rows_", ("lr * rows.values", "(lr * rows.values).astype(np.float32)"))


@caught_by(1)
def a_gradient_comes_once_for_each_look_up(m):
    rewritten(
        m,
        "Embedding.look_up_sparse",
        ("register_hook(small, arrived)", "remove = register_hook(small, arrived)"),
        ("def arrived(grad: Array) -> None:", "def arrived(grad: Array) -> None:\n        remove()"),
    )


@caught_by(1)
def the_same_ids_have_the_same_rows(m):
    """A small table that is kept for the next time does not move when the weight does."""
    m.small_table = lambda layer, distinct: layer.__dict__.setdefault("small", {}).setdefault(
        distinct.tobytes(), layer.weight.data[distinct]
    )
    rewritten(m, "Embedding.look_up_sparse", ("self.weight.data[distinct]", "small_table(self, distinct)"))


@caught_by(1)
def the_offset_counts_where_positions_are_given(m):
    for layer, table in (("SinusoidalPositions", "self.table"), ("LearnedPositions", "self.weight.data")):
        check = f"check_span(offset, x.shape[-2], len({table}))"
        rewritten(
            m,
            f"{layer}.forward",
            ("if positions is not None:", f"span = {check}\n    if positions is not None:"),
        )


@caught_by(1)
def learnt_positions_have_a_stream_of_their_own(m):
    rewritten(m, "LearnedPositions.__init__", ("rng=rng)", "rng=np.random.default_rng(0))"))


@caught_by(1)
def learnt_positions_are_uniform(m):
    rewritten(
        m,
        "LearnedPositions.__init__",
        (
            "normal_(self.weight, 0.02, rng=rng)",
            "self.weight.data[...] = rng.uniform(-0.0346, 0.0346, (max_len, dim))",
        ),
    )


@caught_by(1)
def each_text_may_have_angles_of_its_own(m):
    right = m.rotary.forward

    def forward(x, *, cos, sin):
        if cos.ndim == sin.ndim == x.ndim and cos.shape == sin.shape == (*x.shape[:-1], x.shape[-1] // 2):
            x = m.floating(x)
            a, b = np.split(x, 2, axis=-1)
            return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1, dtype=x.dtype)
        return right(x, cos=cos, sin=sin)

    m.rotary.forward = forward


@caught_by(1)
def integers_turn_in_the_dtype_of_the_tables(m):
    rewritten(
        m, "rotary", ("x = floating(x)", 'x = x.astype(cos.dtype) if x.dtype.kind in "iu" else floating(x)')
    )


@caught_by(1)
def one_state_is_a_batch_of_one(m):
    rewritten(m, "TiedLinear.forward", ("affine(x,", "affine(x if x.ndim > 1 else x.reshape(1, -1),"))


EQUIVALENT: dict[str, str] = {
    "scatter_add: PAIRS.get(rows.dtype, rows.dtype) if rows.shape[1] % 2 == 0 else rows.dtype -> "
    "rows.dtype": ("floats one by one give the same sums, in somewhat more time"),
    "scatter_add: PLACES // max(columns.nbytes, 1) -> PLACES * max(columns.nbytes, 1)": (
        "all places at once give the same sums; the budgets of memory and time allow that"
    ),
    "scatter_add: max(columns.nbytes, 1) -> max(columns.nbytes, 2)": (
        "the 1 is for rows without columns, which come in one piece either way; a column has 8 bytes"
    ),
    "scatter_add: max(PLACES // max(columns.nbytes, 1), 1) -> max(PLACES // max(columns.nbytes, 1), 2)": (
        "a piece of two rows, where rows are so long that one fills the cache, gives the same sums"
    ),
    "module: 1 << 18 -> 1 << 19": "a piece of another size gives the same sums",
    "module: 1 << 18 -> 2 << 18": "a piece of another size gives the same sums",
    "normal_: np.float64 if tensor.dtype == np.float64 else np.float32 -> np.float64": (
        "normal numbers in more digits, rounded as they are written; a draw of other bits is as good"
    ),
    "SparseRows: dataclass(frozen=True, eq=False) -> dataclass(frozen=False, eq=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "SparseRows: dataclass(frozen=True, eq=False) -> dataclass(frozen=True, eq=True)": (
        "given; nobody compares two of them"
    ),
    "check_positions: np.broadcast_shapes(places.shape, tokens) -> "
    "np.broadcast_shapes(tokens, places.shape)": ("two shapes stretch to the same one either way round"),
}
