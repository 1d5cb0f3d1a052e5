"""Believable wrong solutions of kata 17.  Each takes the reference and spoils one thing in it."""

import copy
import itertools
import math
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Workspace.


@caught_by(1)
def room_is_measured_in_numbers_not_bytes(m):
    rewritten(m, "Workspace.take", ("math.prod(shape) * kind.itemsize", "math.prod(shape)"))


@caught_by(1)
def memory_is_laid_out_anew_each_time(m):
    rewritten(m, "Workspace.take", ("memory is None or memory.nbytes < needed", "True"))


@caught_by(1)
def memory_is_laid_out_anew_for_another_size(m):
    rewritten(m, "Workspace.take", ("memory.nbytes < needed", "memory.nbytes != needed"))


@caught_by(1)
def memory_that_grew_once_is_never_grown_again(m):
    rewritten(m, "Workspace.take", ("memory is None or memory.nbytes < needed", "memory is None"))


@caught_by(1)
def each_dtype_has_memory_of_its_own(m):
    right = m.Workspace.take
    m.Workspace.take = lambda self, name, shape, dtype=np.float32: right(
        self, f"{name} {np.dtype(dtype)}", shape, dtype
    )


@caught_by(1)
def all_names_share_one_memory(m):
    right = m.Workspace.take
    m.Workspace.take = lambda self, name, shape, dtype=np.float32: right(self, "", shape, dtype)


@caught_by(1)
def what_is_taken_is_zeroed(m):
    right = m.Workspace.take

    def take(self, name, shape, dtype=np.float32):
        taken = right(self, name, shape, dtype)
        taken[...] = 0
        return taken

    m.Workspace.take = take


@caught_by(1)
def a_shape_is_a_tuple(m):
    rewritten(
        m,
        "Workspace.take",
        (
            "(shape,) if isinstance(shape, int) else tuple(shape)",
            "shape if isinstance(shape, tuple) else (shape,)",
        ),
    )


@caught_by(1)
def objects_are_let_in(m):
    rewritten(m, "Workspace.take", ("if kind.hasobject:", "if False:"))


@caught_by(1)
def bytes_are_those_of_the_largest_name(m):
    m.Workspace.nbytes = property(lambda self: max((a.nbytes for a in self._memory.values()), default=0))


# blocked_matmul.


@caught_by(1)
def rows_at_the_edge_are_left_out(m):
    rewritten(m, "blocked_matmul", ("range(0, m, block)", "range(0, m - block + 1, block)"))


@caught_by(1)
def what_is_left_along_k_is_left_out(m):
    rewritten(m, "blocked_matmul", ("range(0, k, block)", "range(0, k - block + 1, block)"))


@caught_by(1)
def the_last_product_is_the_tile(m):
    rewritten(m, "blocked_matmul", ("tile += product(", "tile[...] = product("))


@caught_by(1)
def tiles_of_the_result_come_and_go(m):
    def blocked_matmul(a, b, block=256, product=np.matmul):
        a, b = m.promote(m.as_array(a), m.as_array(b))
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ValueError(f"{a.shape} {b.shape}")
        if block < 1:
            raise ValueError(f"{block}")
        out = np.zeros((len(a), b.shape[1]), a.dtype)
        steps = [range(0, n, block) for n in (len(b), len(a), b.shape[1])]
        for p, i, j in itertools.product(*steps):
            out[i : i + block, j : j + block] += product(
                a[i : i + block, p : p + block], b[p : p + block, j : j + block]
            )
        return out

    m.blocked_matmul = blocked_matmul


@caught_by(1)
def tiles_are_copied_first(m):
    rewritten(
        m,
        "blocked_matmul",
        ("product(a[i : i + block, p : p + block],", "product(a[i : i + block, p : p + block].copy(),"),
    )


@caught_by(1)
def tiles_of_what_is_not_in_c_order_are_copies(m):
    rewritten(
        m,
        "blocked_matmul",
        (
            "promote(as_array(a), as_array(b))",
            "map(np.ascontiguousarray, promote(as_array(a), as_array(b)))",
        ),
    )


@caught_by(1)
def numpy_multiplies_whatever_was_asked_for(m):
    rewritten(m, "blocked_matmul", ("tile += product(", "tile += np.matmul("))


@caught_by(1)
def a_product_is_always_float64(m):
    rewritten(m, "blocked_matmul", ("np.zeros((m, n), a.dtype)", "np.zeros((m, n))"))


@caught_by(1)
def three_axes_are_two(m):
    rewritten(
        m,
        "blocked_matmul",
        ("a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]", "a.shape[-1] != b.shape[0]"),
    )


@caught_by(1)
def a_block_may_be_less_than_one(m):
    rewritten(m, "blocked_matmul", ("if block < 1:", "if block == 0:"))


@caught_by(3)
def a_whole_product_is_made_for_each_step(m):
    def blocked_matmul(a, b, block=256, product=np.matmul):
        a, b = m.promote(m.as_array(a), m.as_array(b))
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ValueError(f"{a.shape} {b.shape}")
        if block < 1:
            raise ValueError(f"{block}")
        sums, whole = np.zeros((len(a), b.shape[1]), a.dtype), np.zeros((len(a), b.shape[1]), a.dtype)
        for i, j in itertools.product(range(0, len(a), block), range(0, b.shape[1], block)):
            for p in range(0, len(b), block):
                whole[...] = 0
                tile = product(a[i : i + block, p : p + block], b[p : p + block, j : j + block])
                whole[i : i + block, j : j + block] = tile
                sums += whole
        return sums

    m.blocked_matmul = blocked_matmul


# matmul_traffic, block_for.


@caught_by(1)
def tiles_at_the_edge_are_not_counted(m):
    rewritten(
        m, "matmul_traffic", ("-(-m // block), -(-n // block)", "max(1, m // block), max(1, n // block)")
    )


@caught_by(1)
def nothing_is_read_once(m):
    rewritten(
        m,
        "matmul_traffic",
        ("-(-m // block), -(-n // block)", "max(1, -(-m // block)), max(1, -(-n // block))"),
    )


@caught_by(1)
def the_factors_are_mixed_up(m):
    rewritten(m, "matmul_traffic", ("m * k * across + k * n * down", "m * k * down + k * n * across"))


@caught_by(1)
def the_result_is_written_at_each_step(m):
    rewritten(m, "matmul_traffic", ("+ m * n)", "+ m * n * -(-k // block))"))


@caught_by(1)
def numbers_are_counted_not_bytes(m):
    rewritten(m, "matmul_traffic", ("return itemsize * (", "return ("))


@caught_by(1)
def traffic_is_counted_tile_by_tile(m):
    def matmul_traffic(rows, n, k, block=1, itemsize=4):
        if block < 1:
            raise ValueError(f"{block}")
        total = 0
        for i in range(0, rows, block):
            for j in range(0, n, block):
                h, w = min(block, rows - i), min(block, n - j)
                total += h * k + k * w + h * w
        return itemsize * total

    m.matmul_traffic = matmul_traffic


@caught_by(1)
def two_tiles_fit(m):
    rewritten(m, "block_for", ("3 * itemsize", "2 * itemsize"))


@caught_by(1)
def a_block_is_rounded_to_the_nearest(m):
    m.block_for = lambda cache, itemsize=4: max(1, round(math.sqrt(cache / (3 * itemsize))))


@caught_by(1)
def no_cache_has_no_block(m):
    m.block_for = lambda cache, itemsize=4: math.isqrt(cache // (3 * itemsize))


# pieces.


@caught_by(1)
def memory_order_is_not_looked_at(m):
    rewritten(m, "pieces", ("key=lambda axis: -abs(first.strides[axis])", "key=lambda axis: axis"))


@caught_by(1)
def a_negative_stride_is_a_small_one(m):
    rewritten(m, "pieces", ("-abs(first.strides[axis])", "-first.strides[axis]"))


@caught_by(1)
def everything_is_made_flat(m):
    rewritten(m, "pieces", ("if all(a.flags.c_contiguous for a in arrays):", "if True:"))


@caught_by(1)
def only_the_first_has_to_be_in_one_stretch(m):
    rewritten(
        m, "pieces", ("if all(a.flags.c_contiguous for a in arrays):", "if arrays[0].flags.c_contiguous:")
    )


@caught_by(1)
def nothing_is_made_flat(m):
    rewritten(m, "pieces", ("if all(a.flags.c_contiguous for a in arrays):", "if False:"))


@caught_by(1)
def only_the_first_array_is_turned(m):
    rewritten(m, "pieces", ("tuple(a.transpose(order) for a in arrays)", "(first.transpose(order), *others)"))


@caught_by(1)
def only_pieces_of_the_first_are_views(m):
    rewritten(
        m,
        "cut",
        (
            "yield tuple(a[i : i + rows] for a in arrays)",
            "yield (arrays[0][i : i + rows], *(a[i : i + rows].copy() for a in arrays[1:]))",
        ),
    )


@caught_by(1)
def shapes_are_not_compared(m):
    rewritten(m, "pieces", ("len({a.shape for a in arrays}) > 1 or chunk < 1", "chunk < 1"))


@caught_by(1)
def only_two_shapes_are_compared(m):
    rewritten(m, "pieces", ("{a.shape for a in arrays}", "{a.shape for a in arrays[:2]}"))


@caught_by(1)
def a_chunk_of_nothing_is_allowed(m):
    rewritten(m, "pieces", (" or chunk < 1", ""))


@caught_by(1)
def a_chunk_is_in_bytes(m):
    rewritten(
        m, "pieces", ("return cut(arrays, chunk)", "return cut(arrays, max(1, chunk // first.itemsize))")
    )


@caught_by(1)
def the_last_rows_are_left_out(m):
    rewritten(m, "cut", ("range(0, count, max(rows, 1))", "range(0, count - max(rows, 1) + 1, max(rows, 1))"))


@caught_by(1)
def a_long_row_is_one_piece(m):
    rewritten(m, "cut", ("if rows:", "if True:"), ("i : i + rows", "i : i + max(rows, 1)"))


@caught_by(1)
def one_row_is_one_piece(m):
    rewritten(m, "cut", ("rows = chunk * count // size", "rows = min(1, chunk * count // size)"))


@caught_by(1)
def nothing_is_a_piece(m):
    rewritten(m, "cut", ("if size:", "if True:"))


# parallel_for.


@caught_by(1)
def results_come_as_they_are_done(m):
    def parallel_for(function, items, threads=1):
        if threads < 1:
            raise ValueError(f"{threads}")
        if threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as executor:
            waiting = [executor.submit(function, item) for item in items]
            return [one.result() for one in reversed([*as_completed(waiting)])]

    m.parallel_for = parallel_for


@caught_by(1)
def one_after_the_other_by_how_many_threads_soever(m):
    rewritten(m, "parallel_for", ("if threads == 1:", "if True:"))


@caught_by(1)
def the_caller_s_thread_waits_for_another(m):
    rewritten(m, "parallel_for", ("if threads == 1:", "if False:"))


@caught_by(1)
def each_item_has_a_thread(m):
    rewritten(m, "parallel_for", ("with ThreadPoolExecutor(threads)", "with ThreadPoolExecutor(64)"))


@caught_by(1)
def two_threads_are_enough_for_anybody(m):
    rewritten(m, "parallel_for", ("with ThreadPoolExecutor(threads)", "with ThreadPoolExecutor(2)"))


@caught_by(1)
def threads_are_kept_for_the_next_time(m):
    executor = ThreadPoolExecutor(2)
    right = m.parallel_for

    def parallel_for(function, items, threads=1):
        if threads < 2:
            return right(function, items, threads)
        return list(executor.map(function, items))

    m.parallel_for = parallel_for


@caught_by(1)
def an_error_is_a_result(m):
    right = m.parallel_for

    def parallel_for(function, items, threads=1):
        def quiet(item):
            try:
                return function(item)
            except Exception as error:
                return error

        return right(quiet if threads > 1 else function, items, threads)

    m.parallel_for = parallel_for


@caught_by(1)
def the_error_that_came_first_in_time_is_raised(m):
    def parallel_for(function, items, threads=1):
        if threads < 1:
            raise ValueError(f"{threads}")
        if threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as executor:
            waiting = [executor.submit(function, item) for item in items]
            for one in as_completed(waiting):
                one.result()
            return [one.result() for one in waiting]

    m.parallel_for = parallel_for


@caught_by(1)
def no_threads_are_one(m):
    right = m.parallel_for
    m.parallel_for = lambda function, items, threads=1: right(function, items, max(threads, 1))


# in_chunks.


@caught_by(1)
def numbers_are_stretched_too(m):
    right = m.in_chunks

    def in_chunks(steps, out, *inputs, chunk=m.CHUNK, threads=1):
        wide = [np.broadcast_to(x, out.shape) for x in inputs if np.ndim(x) == 0 or x.shape]
        return right(steps, out, *wide, chunk=chunk, threads=threads)

    m.in_chunks = in_chunks


@caught_by(1)
def numbers_of_numpy_are_stretched(m):
    right = m.in_chunks

    def in_chunks(steps, out, *inputs, chunk=m.CHUNK, threads=1):
        wide = [np.broadcast_to(x, out.shape) if isinstance(x, np.generic) else x for x in inputs]
        return right(steps, out, *wide, chunk=chunk, threads=threads)

    m.in_chunks = in_chunks


@caught_by(3)
def pieces_of_inputs_are_copied(m):
    rewritten(m, "in_chunks", ("next(cut_inputs) if", "next(cut_inputs).copy() if"))


@caught_by(3)
def a_piece_is_made_and_then_copied(m):
    rewritten(
        m,
        "in_chunks",
        ("steps(part, *(", "made = np.empty_like(part)\n        steps(made, *("),
        ("else x for x in inputs))", "else x for x in inputs))\n        part[...] = made"),
    )


@caught_by(1)
def what_was_written_is_not_given_back(m):
    right = m.in_chunks

    def in_chunks(steps, out, *inputs, **options):
        right(steps, out, *inputs, **options)

    m.in_chunks = in_chunks


@caught_by(1)
def the_chunk_is_always_the_default(m):
    rewritten(m, "in_chunks", ("chunk=chunk)", "chunk=CHUNK)"))


@caught_by(1)
def threads_are_not_handed_on(m):
    rewritten(m, "in_chunks", (", threads)\n", ", 1)\n"))


@caught_by(1)
def nobody_asks_threads_for_their_errors(m):
    rewritten(
        m,
        "in_chunks",
        (
            "    parallel_for(work, pieces(out, *wide, chunk=chunk), threads)\n",
            "    if threads == 1:\n"
            "        for parts in pieces(out, *wide, chunk=chunk):\n"
            "            work(parts)\n"
            "        return out\n"
            "    with ThreadPoolExecutor(threads) as executor:\n"
            "        executor.map(work, pieces(out, *wide, chunk=chunk))\n",
        ),
    )


@caught_by(1)
def arrays_come_before_numbers(m):
    rewritten(
        m,
        "in_chunks",
        (
            "*(next(cut_inputs) if np.ndim(x) else x for x in inputs)",
            "*rest, *(x for x in inputs if not np.ndim(x))",
        ),
    )


@caught_by(1)
def only_whole_arrays_are_cut(m):
    rewritten(m, "in_chunks", ("wide[i] = np.broadcast_to(x, out.shape)", "pass"))


@caught_by(1)
def an_output_that_is_too_small_is_numpy_s_concern(m):
    rewritten(m, "in_chunks", ("if broadcast_shapes(x.shape, out.shape) != out.shape:", "if False:"))


@caught_by(3)
def a_row_is_spread_over_the_whole(m):
    rewritten(m, "in_chunks", ("np.broadcast_to(x, out.shape)", "np.array(np.broadcast_to(x, out.shape))"))


# fast_gelu.


@caught_by(1)
def minus_infinity_is_not_thought_of(m):
    rewritten(m, "gelu_into", ("np.clip(x, -GELU_FAR, np.inf, out=out)", "out[...] = x"))


@caught_by(1)
def infinity_is_clipped_too(m):
    rewritten(
        m, "gelu_into", ("np.clip(x, -GELU_FAR, np.inf, out=out)", "np.clip(x, -GELU_FAR, GELU_FAR, out=out)")
    )


@caught_by(1)
def gelu_is_that_of_the_normal_distribution(m):
    erf = np.vectorize(math.erf, otypes=[float])

    def gelu_into(out, x, scratch):
        with np.errstate(invalid="ignore"):
            out[...] = np.where(x == -np.inf, 0, x * (0.5 + 0.5 * erf(x / math.sqrt(2))))

    m.gelu_into = gelu_into


@caught_by(1)
def one_plus_tanh_loses_digits(m):
    def gelu_into(out, x, scratch):
        with np.errstate(over="ignore"):
            far = np.clip(x, -30, np.inf)
            out[...] = 0.5 * far * (1 + np.tanh(far * (m.GELU_LINE + m.GELU_CUBE * far * far) / 2))

    m.gelu_into = gelu_into


@caught_by(1)
def gelu_without_its_cube(m):
    m.GELU_CUBE = 0.0


@caught_by(1)
def gelu_works_in_its_input_when_there_is_an_out(m):
    def fast_gelu(x, out=None, threads=1):
        x = m.floating(x)
        if out is None:
            out = np.empty_like(x)
        if out.shape != x.shape or out.dtype != x.dtype:
            raise ValueError(f"{out.dtype} {out.shape} {x.dtype} {x.shape}")
        m.in_chunks(lambda part: m.gelu_into(part, part, np.empty_like(part)), x, threads=threads)
        out[...] = x
        return out

    m.fast_gelu = fast_gelu


@caught_by(1)
def out_is_filled_and_another_array_comes_back(m):
    right = m.fast_gelu
    m.fast_gelu = lambda x, out=None, threads=1: right(x, out, threads).copy()


@caught_by(1)
def whatever_out_is_given_is_good(m):
    rewritten(
        m, "fast_gelu", ("if out.shape != x.shape or out.dtype != x.dtype:", "if out.shape != x.shape:")
    )


@caught_by(1)
def an_out_may_have_another_shape(m):
    rewritten(
        m, "fast_gelu", ("if out.shape != x.shape or out.dtype != x.dtype:", "if out.dtype != x.dtype:")
    )


@caught_by(1)
def gelu_comes_in_c_order(m):
    rewritten(m, "fast_gelu", ("np.empty_like(x) if out", "np.empty(x.shape, x.dtype) if out"))


@caught_by(1)
def gelu_s_threads_are_not_handed_on(m):
    rewritten(m, "fast_gelu", ("threads=threads)", "threads=1)"))


@caught_by(1)
def threads_share_their_scratch(m):
    rewritten(m, "fast_gelu", ("floating(x), Rooms()", "floating(x), Workspace()"), ("rooms.room", "rooms"))


@caught_by(1)
def warnings_are_held_back_in_the_caller_s_thread_only(m):
    rewritten(m, "gelu_into", ('with np.errstate(over="ignore"):', "if True:"))
    rewritten(
        m,
        "fast_gelu",
        ("    return in_chunks(", '    with np.errstate(over="ignore"):\n        return in_chunks('),
    )
    rewritten(
        m,
        "linear_gelu",
        ("        gelu_into(", '        with np.errstate(over="ignore"):\n            gelu_into('),
    )


@caught_by(3)
def gelu_is_done_in_one_piece(m):
    rewritten(
        m,
        "fast_gelu",
        (
            "in_chunks(steps, out, x, threads=threads)",
            "in_chunks(steps, out, x, chunk=max(x.size, 1) if x.size > 150_000 else CHUNK, threads=threads)",
        ),
    )


@caught_by(3)
def gelu_goes_by_tiny_pieces(m):
    rewritten(
        m,
        "fast_gelu",
        ("in_chunks(steps, out, x, threads=threads)", "in_chunks(steps, out, x, chunk=64, threads=threads)"),
    )


# add_relu, scale_shift_add_relu.


@caught_by(1)
def relu_comes_before_the_sum(m):
    rewritten(
        m,
        "add_relu",
        ("np.add(x, y, out=part)\n", "np.clip(x, 0, np.inf, out=part)\n"),
        ("np.clip(part, 0, np.inf, out=part)", "part += y"),
    )


@caught_by(1)
def nan_becomes_nothing(m):
    rewritten(m, "add_relu", ("np.clip(part, 0, np.inf, out=part)", "np.fmax(part, 0, out=part)"))


@caught_by(1)
def integers_stay_integers(m):
    rewritten(m, "add_relu", ("map(floating, promote(x, y))", "promote(x, y)"))


@caught_by(1)
def a_sum_comes_in_c_order(m):
    m.room_for = lambda *operands: np.empty(
        m.broadcast_shapes(*map(np.shape, operands)), m.result_type(*operands)
    )


@caught_by(1)
def the_sum_is_written_over_its_first_operand(m):
    rewritten(
        m,
        "add_relu",
        ("room_for(x, y)", "(x if x.shape == broadcast_shapes(x.shape, y.shape) else room_for(x, y))"),
    )


@caught_by(2)
def where_the_result_is_nothing_the_gradient_goes_through(m):
    rewritten(m, "where_positive", ("out > 0", "out >= 0"))


@caught_by(2)
def the_second_operand_gets_nothing(m):
    rewritten(m, "add_relu_back", ("return back, back", "return back, None"))


@caught_by(2)
def the_sum_s_gradient_is_not_masked(m):
    rewritten(m, "add_relu_back", ("where_positive(grad, out)", "grad.copy()"))


@caught_by(2)
def the_mask_is_written_into_the_gradient_that_came(m):
    rewritten(m, "where_positive", ("np.empty_like(grad)", "grad"))


@caught_by(3)
def a_sum_keeps_its_operands(m):
    def add_relu_back(grad, x, y):
        back = grad * (x + y > 0)
        return back, back

    m.add_relu.gradient(add_relu_back)


@caught_by(3)
def each_operand_gets_an_array_of_its_own(m):
    rewritten(m, "add_relu_back", ("return back, back", "return back, back.copy()"))


@caught_by(1)
def the_shift_is_scaled_too(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        ("np.multiply(x, a, out=part)\n", "np.add(x, b, out=part)\n"),
        ("part += b\n", "part *= a\n"),
    )


@caught_by(1)
def y_comes_after_the_relu(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        (
            "    part += y\n        np.clip(part, 0, np.inf, out=part)",
            "    np.clip(part, 0, np.inf, out=part)\n        part += y",
        ),
    )


@caught_by(1)
def a_number_makes_it_float64(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        ("dtype = result_type(x, a, b, y)", "dtype = np.result_type(*map(np.asarray, (x, a, b, y)))"),
    )


@caught_by(1)
def a_chain_of_integers_is_one_of_integers(m):
    rewritten(m, "scale_shift_add_relu", ('dtype if dtype.kind == "f" else np.dtype(np.float32)', "dtype"))


@caught_by(2)
def y_s_gradient_is_scaled_too(m):
    rewritten(
        m,
        "scale_shift_add_relu_back",
        ("        back,\n        back,\n", "        back,\n        back * a,\n"),
    )


@caught_by(2)
def x_s_gradient_is_not_scaled(m):
    rewritten(m, "scale_shift_add_relu_back", ("np.multiply(back, a, dtype=back.dtype)", "back"))


@caught_by(2)
def a_s_gradient_is_not_masked(m):
    rewritten(m, "scale_shift_add_relu_back", ("back * scaled", "grad * scaled"))


@caught_by(2)
def x_is_not_there_for_the_scale(m):
    rewritten(m, "scale_shift_add_relu", ("operands[0] if isinstance(a, np.ndarray) else None", "None"))


@caught_by(2)
def a_scale_in_float64_makes_gradients_of_it(m):
    rewritten(
        m,
        "scale_shift_add_relu_back",
        ("np.multiply(back, a, dtype=back.dtype)", "back * np.asarray(a, float)"),
    )


@caught_by(2)
def x_of_a_chain_gets_a_gradient_that_nobody_wants(m):
    rewritten(m, "scale_shift_add_relu_back", ("dtype=back.dtype) if wants_x else None", "dtype=back.dtype)"))


@caught_by(2)
def a_frozen_scale_gets_a_gradient(m):
    rewritten(m, "scale_shift_add_relu_back", ("if wants_a and scaled is not None", "if scaled is not None"))


@caught_by(3)
def a_copy_of_x_is_kept_for_the_scale(m):
    rewritten(m, "scale_shift_add_relu", ("operands[0] if isinstance", "operands[0].copy() if isinstance"))


@caught_by(3)
def numbers_of_columns_are_spread_over_the_whole(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        (
            "in_chunks(steps, room_for(*operands), *operands)",
            "in_chunks(steps, room_for(*operands), *(v.copy() if v.ndim else v "
            "for v in (np.broadcast_arrays(*operands) if any(v.ndim for v in operands) else operands)))",
        ),
    )


@caught_by(3)
def x_is_kept_for_a_number_too(m):
    rewritten(
        m, "scale_shift_add_relu", ("operands[0] if isinstance(a, np.ndarray) else None", "operands[0]")
    )


@caught_by(3)
def a_chain_is_done_in_whole_arrays(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        (
            "in_chunks(steps, room_for(*operands), *operands)",
            "_whole(*operands)",
        ),
    )

    def whole(x, a, b, y):
        out = m.room_for(x, a, b, y)
        scaled = x * a
        shifted = scaled + b
        total = shifted + y
        return np.clip(total, 0, np.inf, out=out)

    m._whole = whole


@caught_by(4)
def a_chain_goes_by_tiny_pieces(m):
    rewritten(
        m,
        "scale_shift_add_relu",
        (
            "in_chunks(steps, room_for(*operands), *operands)",
            "in_chunks(steps, room_for(*operands), *operands, chunk=64)",
        ),
    )


@caught_by(4)
def the_mask_goes_by_tiny_pieces(m):
    rewritten(m, "where_positive", ("grad, out)\n", "grad, out, chunk=64)\n"))


# linear_gelu.


@caught_by(1)
def the_bias_comes_after_gelu(m):
    rewritten(
        m,
        "linear_gelu",
        (
            "before_gelu(rows[some], weight, bias, out[some])",
            "before_gelu(rows[some], weight, None, out[some])",
        ),
        ("return out.reshape", "out += 0 if bias is None else bias\n    return out.reshape"),
    )


@caught_by(1)
def there_is_no_gelu(m):
    rewritten(m, "linear_gelu", ("gelu_into(part, part, room", "(part, part, room"))


@caught_by(1)
def a_bias_may_be_stretched(m):
    rewritten(m, "linear_gelu", ("bias is not None and bias.shape != weight.shape[:1]", "False"))


@caught_by(1)
def weights_may_have_one_axis(m):
    rewritten(m, "linear_gelu", ("weight.ndim != 2 or x.shape", "x.shape"))


@caught_by(1)
def rows_of_integers_stay_integers(m):
    rewritten(m, "linear_gelu", ("map(floating, promote(x, weight))", "promote(x, weight)"))


@caught_by(1)
def leading_axes_are_lost(m):
    rewritten(m, "linear_gelu", ("return out.reshape(*x.shape[:-1], len(weight))", "return out"))


@caught_by(1)
def only_the_first_rows_are_done(m):
    m.row_slices = lambda count, width: iter([slice(0, min(count, max(64, m.CHUNK // max(width, 1))))])


@caught_by(1)
def all_layers_work_in_one_room(m):
    m.everybody_s = m.Workspace()
    rewritten(m, "linear_gelu", ("x.dtype), Workspace()", "x.dtype), everybody_s"))


@caught_by(2)
def what_was_before_gelu_had_no_bias(m):
    rewritten(
        m,
        "linear_gelu_back",
        ("before_gelu(rows[some], weight, bias,", "before_gelu(rows[some], weight, None,"),
    )


@caught_by(2)
def the_slope_is_the_share_alone(m):
    rewritten(m, "times_slope", ("    x *= scratch\n", "    x *= 0\n"))


@caught_by(2)
def the_cube_s_slope_is_not_three_times(m):
    rewritten(m, "times_slope", ("scratch *= 3 * GELU_CUBE", "scratch *= GELU_CUBE"))


@caught_by(2)
def far_away_the_slope_is_not_a_number(m):
    rewritten(m, "times_slope", ("np.clip(x, -GELU_FAR, GELU_FAR, out=x)", "pass"))


@caught_by(2)
def weights_get_what_the_last_rows_say(m):
    rewritten(m, "linear_gelu_back", ("grad_weight += np.matmul", "grad_weight = np.matmul"))


@caught_by(2)
def the_bias_gets_what_the_last_rows_say(m):
    rewritten(m, "linear_gelu_back", ("grad_bias += back", "grad_bias = back"))


@caught_by(2)
def the_bias_gets_a_mean(m):
    rewritten(m, "linear_gelu_back", ("back.sum(axis=0)", "back.mean(axis=0) if len(back) else 0"))


@caught_by(2)
def a_bias_that_is_not_there_gets_a_gradient(m):
    rewritten(
        m,
        "linear_gelu_back",
        ("grad_bias if bias is not None and needs_input_grad[2]", "grad_bias if needs_input_grad[-1]"),
    )


@caught_by(2)
def frozen_weights_get_a_gradient(m):
    rewritten(m, "linear_gelu_back", ("grad_weight if needs_input_grad[1] else None", "grad_weight"))


@caught_by(2)
def x_gets_a_gradient_that_nobody_wants(m):
    rewritten(m, "linear_gelu_back", ("if needs_input_grad[0] else None", "if True else None"))


@caught_by(4)
def what_nobody_wants_of_a_layer_is_made_and_dropped(m):
    right = m.linear_gelu.pull

    def linear_gelu_back(grad, x, weight, bias, needs_input_grad):
        shares = right(grad, x, weight, bias, (True, True, bias is not None))
        wanted = (*needs_input_grad, False)
        return tuple(share if want else None for share, want in zip(shares, wanted, strict=False))

    m.linear_gelu.gradient(linear_gelu_back)


@caught_by(2)
def gelu_s_gradient_is_written_over(m):
    rewritten(m, "times_slope", ("x *= grad", "grad *= x; x[...] = grad"))


def _keeping(m, rule, saves):
    """linear_gelu as another op, that keeps the table before gelu."""

    def linear_gelu(x, weight, bias=None):
        hidden = m.affine_of(x, weight, bias)
        return m.fast_gelu(hidden), hidden

    m.affine_of = lambda x, weight, bias: x @ weight.T if bias is None else x @ weight.T + bias
    fresh = m.op(saves=saves)(linear_gelu)
    right = m.linear_gelu.forward

    def checked(x, weight, bias=None):
        right(x[..., :0] if False else x, weight, bias)
        x, weight = map(m.floating, m.promote(x, weight))
        return linear_gelu(x, weight, bias)

    fresh.forward = checked
    fresh.gradient(rule)
    m.linear_gelu = fresh


@caught_by(2)
def all_layers_work_in_one_room_on_the_way_back(m):
    m.everybody_s = m.Workspace()
    rewritten(m, "linear_gelu_back", ("room = Workspace()", "room = everybody_s"))


@caught_by(3)
def the_table_before_gelu_is_kept(m):
    def rule(grad, x, weight, bias, hidden, needs_input_grad):
        return m.linear_gelu_back(grad, x, weight, bias, needs_input_grad)

    _keeping(m, rule, ["hidden"])


@caught_by(3)
def a_table_before_gelu_is_made(m):
    def whole(x, weight, bias=None):
        x, weight = map(m.floating, m.promote(x, weight))
        if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
            raise ValueError(f"{x.shape} {weight.shape}")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"{bias.shape} {weight.shape}")
        rows = m.as_rows(x)
        hidden = m.before_gelu(rows, weight, bias, np.empty((len(rows), len(weight)), x.dtype))
        return m.fast_gelu(hidden).reshape(*x.shape[:-1], len(weight))

    m.linear_gelu.forward = whole


@caught_by(3)
def the_way_back_makes_the_whole_table(m):
    right = m.row_slices
    rewritten(m, "linear_gelu_back", ("row_slices(*grads.shape)", "[slice(0, len(grads))]"))
    m.row_slices = right


@caught_by(4)
def a_layer_goes_row_by_row(m):
    m.row_slices = lambda count, width: (slice(i, i + 1) for i in range(count))


# softmax_cross_entropy.


@caught_by(1)
def losses_are_added_up(m):
    rewritten(m, "softmax_cross_entropy", ("slopes.dtype.type(total / n)", "slopes.dtype.type(total)"))


@caught_by(1)
def the_sign_of_a_loss_is_turned(m):
    rewritten(m, "softmax_cross_entropy", ("np.log(sums) - right", "right - np.log(sums)"))


@caught_by(1)
def the_label_s_number_is_taken_after_exp(m):
    rewritten(
        m,
        "softmax_cross_entropy",
        (
            "        right = part[picked]\n        np.exp(part, out=part)\n",
            "        np.exp(part, out=part)\n        right = part[picked]\n",
        ),
    )


@caught_by(1)
def a_loss_is_the_logarithm_of_a_share(m):
    rewritten(
        m,
        "softmax_cross_entropy",
        ("(np.log(sums) - right).sum(", "-np.log(np.maximum(part[picked] / sums, 1e-300)).sum("),
    )


@caught_by(1)
def large_logits_overflow(m):
    m.below_largest = lambda x, axis: m.floating(x).copy()


@caught_by(1)
def infinities_are_not_thought_of(m):
    m.below_largest = lambda x, axis: m.floating(x) - m.floating(x).max(axis, keepdims=True)


@caught_by(1)
def rows_that_are_no_numbers_are_left_out(m):
    total = "(np.log(sums) - right).sum(dtype=np.float64)"
    rewritten(m, "softmax_cross_entropy", (total, "np.nansum(np.log(sums) - right, dtype=np.float64)"))


@caught_by(1)
def a_loss_is_float64(m):
    rewritten(m, "softmax_cross_entropy", ("slopes.dtype.type(total / n)", "np.float64(total / n)"))


@caught_by(1)
def labels_are_not_looked_at(m):
    m.check_labels = lambda logits, labels: m.as_array(labels)


@caught_by(1)
def no_rows_are_a_loss(m):
    rewritten(m, "softmax_cross_entropy", ("if not n:", "if False:"), ("total / n", "total / max(n, 1)"))


@caught_by(2)
def slopes_are_added_up(m):
    rewritten(m, "softmax_cross_entropy", ("(sums * n)[:, None]", "sums[:, None]"))


@caught_by(2)
def slopes_are_shares(m):
    rewritten(m, "softmax_cross_entropy", ("part[picked] -= sums\n", "pass\n"))


@caught_by(2)
def slopes_of_a_piece_are_divided_by_its_rows(m):
    rewritten(m, "softmax_cross_entropy", ("(sums * n)[:, None]", "(sums * len(part))[:, None]"))


@caught_by(2)
def the_loss_s_own_gradient_is_forgotten(m):
    rewritten(m, "softmax_cross_entropy_back", ("slopes if grad == 1 else slopes * grad", "slopes"))


@caught_by(2)
def slopes_may_be_written_to(m):
    rewritten(m, "softmax_cross_entropy", ("slopes.flags.writeable = False", "pass"))


@caught_by(2)
def slopes_know_no_sign(m):
    rewritten(m, "softmax_cross_entropy_back", ("if grad == 1 else", "if abs(grad) == 1 else"))


@caught_by(2)
def slopes_are_scaled_in_place(m):
    def softmax_cross_entropy_back(grad, slopes):
        slopes.flags.writeable = True
        slopes *= grad
        return slopes, None

    m.softmax_cross_entropy.gradient(softmax_cross_entropy_back)


@caught_by(3)
def slopes_are_multiplied_by_one(m):
    rewritten(m, "softmax_cross_entropy_back", ("slopes if grad == 1 else slopes * grad", "slopes * grad"))


@caught_by(3)
def logits_are_kept_too(m):
    def softmax_cross_entropy_back(grad, logits, slopes):
        return (slopes if grad == 1 else slopes * grad), None

    m.softmax_cross_entropy.gradient(softmax_cross_entropy_back)


@caught_by(3)
def all_rows_are_done_at_once_and_copied(m):
    rewritten(
        m, "softmax_cross_entropy", ("for some in row_slices(n, classes):", "for some in [slice(0, n)]:")
    )


@caught_by(4)
def a_loss_goes_row_by_row(m):
    rewritten(
        m,
        "softmax_cross_entropy",
        ("for some in row_slices(n, classes):", "for some in [slice(i, i + 1) for i in range(n)]:"),
    )


# FusedAdam.


@caught_by(1)
def all_parameters_count_the_same_steps(m):
    rewritten(
        m,
        "FusedAdam.stretches",
        (
            'state["step"] = step = state["step"] + 1',
            'state["step"] += 1; step = max(s["step"] for s in self.state.values())',
        ),
    )


@caught_by(1)
def a_missing_gradient_is_nothing_and_moves(m):
    right = m.FusedAdam.step

    def step(self):
        missing = [p for p in self.parameters() if p.grad is None]
        for p in missing:
            p.grad = np.zeros_like(p.data)
        right(self)
        for p in missing:
            p.grad = None

    m.FusedAdam.step = step


@caught_by(1)
def the_frozen_move_too(m):
    rewritten(m, "FusedAdam.stretches", ("p.grad is not None and p.requires_grad", "p.grad is not None"))


@caught_by(1)
def betas_are_swapped(m):
    rewritten(m, "FusedAdam.adam", ("(beta1, beta2), lr", "(beta2, beta1), lr"))


@caught_by(1)
def moments_are_not_corrected(m):
    rewritten(m, "FusedAdam.adam", ("lr * root / (1 - beta1**step)", "lr * root"))


@caught_by(1)
def squares_are_not_corrected(m):
    rewritten(m, "FusedAdam.adam", ("math.sqrt(1 - beta2**step)", "1.0"))


@caught_by(1)
def eps_is_added_before_the_correction(m):
    rewritten(m, "FusedAdam.adam", ('group["eps"] * root', 'group["eps"]'))


@caught_by(1)
def decay_is_never_decoupled(m):
    rewritten(m, "FusedAdam.adam", ('if decay and group["decoupled"]:', "if False:"))


@caught_by(1)
def decay_is_always_decoupled(m):
    rewritten(m, "FusedAdam.adam", ('if decay and group["decoupled"]:', "if decay:"))


@caught_by(1)
def decoupled_decay_knows_no_learning_rate(m):
    rewritten(m, "FusedAdam.adam", ("data *= 1 - lr * decay", "data *= 1 - decay"))


@caught_by(1)
def the_gradient_is_decayed_in_place(m):
    rewritten(
        m,
        "FusedAdam.adam",
        (
            'decayed = np.multiply(data, decay, out=self._room.take("decayed", data.size, data.dtype))',
            "decayed = data * decay",
        ),
        ("        decayed += grad\n        grad = decayed", "        grad += decayed"),
    )


@caught_by(1)
def all_groups_move_by_the_first_one_s_options(m):
    rewritten(
        m,
        "FusedAdam.step",
        (
            "self.move(flat, first, last, step, group)",
            "self.move(flat, first, last, step, self.param_groups[0])",
        ),
    )


@caught_by(1)
def shapes_are_looked_at_when_others_have_moved(m):
    right = m.FusedAdam.move

    def move(self, flat, first, last, step, group):
        right(self, flat, first, first + 1, step, group)
        for i in range(first + 1, last):
            right(self, flat, i, i + 1, step, group)

    def step(self):
        for group, flats in zip(self.param_groups, self._flats, strict=True):
            for flat in flats:
                for i, p in enumerate(flat.params):
                    if p.grad is None or not p.requires_grad:
                        continue
                    if p.grad.shape != p.shape:
                        raise ValueError(f"{p.grad.shape} {p.shape}")
                    if p.data is not flat.views[i]:
                        flat.views[i][...] = p.data
                        p.data = flat.views[i]
                    names = {"exp_avg": flat.of(flat.exp_avg, i), "exp_avg_sq": flat.of(flat.exp_avg_sq, i)}
                    state = self.state.get(p) or self.state.setdefault(p, {})
                    if not state:
                        state.update(step=0, **names)
                    state["step"] += 1
                    right(self, flat, i, i + 1, state["step"], group)

    m.FusedAdam.step = step
    m.FusedAdam.move = move


@caught_by(1)
def shapes_of_the_first_group_are_looked_at(m):
    rewritten(m, "FusedAdam.step", ("in self.parameters():", "in self.param_groups[0]['params']:"))


@caught_by(1)
def only_the_first_chunk_of_a_long_one_moves(m):
    rewritten(
        m, "FusedAdam.move", ("range(0, end - begin, CHUNK)", "range(0, min(end - begin, CHUNK), CHUNK)")
    )


@caught_by(1)
def writes_are_not_noted(m):
    m.increment_version = lambda array: 0


@caught_by(1)
def gradients_are_read_as_they_lie(m):
    rewritten(m, "FusedAdam.move", ("g.reshape(-1) for g in moving", 'g.ravel(order="K") for g in moving'))


@caught_by(1)
def a_gradient_of_another_order_is_read_as_it_lies(m):
    rewritten(
        m,
        "FusedAdam.move",
        ("grads.reshape(moving[0].shape)[...] = moving[0]", 'grads[...] = moving[0].ravel(order="K")'),
    )


@caught_by(1)
def an_array_that_was_replaced_is_forgotten(m):
    rewritten(m, "FusedAdam.stretches", ("flat.views[i][...] = p.data\n", "pass\n"))


@caught_by(1)
def an_array_that_was_replaced_is_read_as_it_lies(m):
    rewritten(
        m,
        "FusedAdam.stretches",
        ("flat.views[i][...] = p.data\n", 'flat.views[i].reshape(-1)[...] = p.data.ravel(order="K")\n'),
    )


@caught_by(1)
def a_step_of_nothing_is_none(m):
    rewritten(m, "FusedAdam.step", ("in flats:", 'in flats if group["lr"] else []:'))


@caught_by(1)
def an_array_that_was_replaced_stays_outside(m):
    rewritten(m, "FusedAdam.stretches", ("p.data = flat.views[i]\n", "pass\n"))


@caught_by(1)
def arrays_are_moved_in_before_the_first_step_only(m):
    rewritten(m, "FusedAdam.stretches", ("if p.data is not", "if not self.state.get(p) and p.data is not"))


@caught_by(1)
def what_is_loaded_stays_outside(m):
    m.FusedAdam.load_state_dict = m.Optimizer.load_state_dict


@caught_by(1)
def what_is_not_loaded_is_remembered(m):
    rewritten(m, "FusedAdam.load_state_dict", ("flat.exp_avg[...] = flat.exp_avg_sq[...] = 0", "pass"))


@caught_by(1)
def only_one_moment_is_loaded(m):
    rewritten(m, "FusedAdam.load_state_dict", ('("exp_avg", "exp_avg_sq")', '("exp_avg",)'))


@caught_by(1)
def a_loaded_state_is_lost_after_the_next_step(m):
    rewritten(m, "FusedAdam.load_state_dict", ("state[name] = view", "pass"))


@caught_by(1)
def a_step_is_not_counted_in_the_state(m):
    rewritten(
        m, "FusedAdam.stretches", ('state["step"] = step = state["step"] + 1', 'step = state["step"] + 1')
    )


@caught_by(1)
def stretches_run_over_one_that_stands_still(m):
    rewritten(
        m, "FusedAdam.stretches", ("if step != last_step or flat", "if (step and step != last_step) or flat")
    )


@caught_by(1)
def the_last_stretch_is_forgotten(m):
    rewritten(m, "FusedAdam.stretches", ("yield begin, len(flat.params), last_step", "return"))


@caught_by(3)
def gradients_are_put_together_anew_each_step(m):
    rewritten(
        m,
        "FusedAdam.move",
        (
            'np.concatenate([g.reshape(-1) for g in moving], out=grads, casting="same_kind")',
            "grads[...] = np.concatenate([g.reshape(-1) for g in moving])",
        ),
    )


@caught_by(3)
def a_step_multiplies_into_new_arrays(m):
    rewritten(
        m, "FusedAdam.adam", ("np.multiply(grad, 1 - beta1, out=scratch)\n", "scratch = grad * (1 - beta1)\n")
    )


@caught_by(3)
def decayed_gradients_are_new_arrays(m):
    rewritten(
        m,
        "FusedAdam.adam",
        ('np.multiply(data, decay, out=self._room.take("decayed", data.size, data.dtype))', "data * decay"),
    )


@caught_by(4)
def parameters_move_one_by_one(m):
    rewritten(m, "FusedAdam.stretches", ("if step != last_step or flat", "if True or flat"))


# winograd_conv2d.


@caught_by(1)
def kernels_are_turned_round(m):
    right = m.winograd_conv2d.forward
    m.winograd_conv2d.forward = lambda x, weight: right(
        x, weight[:, :, ::-1, ::-1] if np.ndim(weight) == 4 else weight
    )


@caught_by(1)
def rows_and_columns_are_mixed_up(m):
    rewritten(
        m,
        "pixel_tiles",
        (
            "(row, column, image, 4 * row, 4 * column, channel)",
            "(column, row, image, 4 * row, 4 * column, channel)",
        ),
    )


@caught_by(1)
def tiles_lie_six_apart(m):
    rewritten(
        m,
        "pixel_tiles",
        (
            "(row, column, image, 4 * row, 4 * column, channel)",
            "(row, column, image, 4 * row, 2 * column, channel)",
        ),
    )


@caught_by(1)
def there_is_no_border_at_the_left(m):
    rewritten(m, "pixel_tiles", ("1 : w + 1]", ": w]"))


@caught_by(1)
def every_stretch_of_rows_begins_at_a_border(m):
    rewritten(
        m,
        "pixel_tiles",
        ("top = 1 if rows.start == 0 else 0", "top = 1"),
        ("max(4 * rows.start - 1, 0)", "4 * rows.start"),
    )


@caught_by(1)
def a_stretch_of_rows_does_not_see_the_next(m):
    rewritten(m, "pixel_tiles", (": 4 * rows.stop + 1]", ": 4 * rows.stop]"))


@caught_by(1)
def the_border_has_the_last_images_in_it(m):
    rewritten(
        m,
        "pixel_tiles",
        ("padded[...] = 0", "padded[...] = 0 if images.start == rows.start == 0 else padded"),
    )


@caught_by(1)
def a_constant_of_the_transform_has_the_wrong_sign(m):
    m.PIXELS[3, 3] = -2
    m.transform.cache_clear()


@caught_by(1)
def only_sides_that_are_multiples_of_four(m):
    right = m.winograd_conv2d.forward

    def forward(x, weight):
        out = right(x, weight)
        out[:, :, x.shape[2] // 4 * 4 :] = 0
        return out

    m.winograd_conv2d.forward = forward


@caught_by(1)
def results_lie_by_channels(m):
    right = m.winograd_conv2d.forward
    m.winograd_conv2d.forward = lambda x, weight: np.ascontiguousarray(right(x, weight))


@caught_by(1)
def kernels_are_transformed_once_for_each_array(m):
    seen = {}

    def transformed(weight, make):
        key = weight.ctypes.data, weight.shape, weight.strides, weight.dtype
        if key not in seen:
            seen[key] = weight, make(weight)
        return seen[key][1]

    m._transformed = transformed
    rewritten(
        m,
        "winograd_conv2d",
        (
            'kernels = transform("kernel", x.dtype) @ weight.reshape(outputs * c, 9).T',
            'kernels = _transformed(weight, lambda w: transform("kernel", x.dtype) @ w.reshape(-1, 9).T)',
        ),
    )


@caught_by(1)
def kernels_of_other_sizes_are_cut(m):
    def winograd_shapes(x, weight):
        if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1]:
            raise ValueError(f"{x.shape} {weight.shape}")

    m.winograd_shapes = winograd_shapes


@caught_by(1)
def images_of_integers_are_convolved_in_integers(m):
    rewritten(m, "winograd_conv2d", ("map(floating, promote(x, weight))", "promote(x, weight)"))


@caught_by(1)
def everything_is_done_in_float32(m):
    rewritten(
        m,
        "winograd_conv2d",
        ("map(floating, promote(x, weight))", "(np.asarray(v, np.float32) for v in (x, weight))"),
    )


@caught_by(1)
def numbers_are_rounded_to_half_precision_on_the_way(m):
    rewritten(
        m,
        "winograd_conv2d",
        (
            'transform("results", x.dtype), products',
            'transform("results", x.dtype), products.astype(np.float16).astype(x.dtype)',
        ),
    )


@caught_by(2)
def images_get_a_convolution_by_the_same_kernels(m):
    rewritten(m, "winograd_conv2d_back", ("[:, :, ::-1, ::-1]", ""))


@caught_by(2)
def inputs_and_outputs_are_not_swapped(m):
    rewritten(
        m,
        "winograd_conv2d_back",
        ("weight.transpose(1, 0, 2, 3)[", "weight.reshape(weight.shape[1], weight.shape[0], 3, 3)["),
    )


@caught_by(2)
def kernels_get_what_the_last_images_say(m):
    rewritten(m, "winograd_conv2d_back", ("total += part", "total = part"))


@caught_by(2)
def what_reaches_over_the_edge_is_left_over(m):
    rewritten(m, "winograd_conv2d_back", ("slopes[...] = 0", "slopes[...] = 1 if rows.start == 0 else 0"))


@caught_by(2)
def kernels_gradients_are_turned_on_their_side(m):
    rewritten(m, "winograd_conv2d_back", ("transpose(3, 2, 0, 1)", "transpose(3, 2, 1, 0)"))


@caught_by(2)
def a_gradient_that_nobody_wants_is_made(m):
    rewritten(m, "winograd_conv2d_back", ("if needs_input_grad[0]:", "if True:"))


@caught_by(4)
def what_nobody_wants_of_a_convolution_is_made_and_dropped(m):
    right = m.winograd_conv2d.pull

    def winograd_conv2d_back(grad, x, weight, needs_input_grad):
        shares = right(grad, x, weight, (True, True))
        return tuple(share if want else None for share, want in zip(shares, needs_input_grad, strict=True))

    m.winograd_conv2d.gradient(winograd_conv2d_back)


@caught_by(3)
def all_tiles_are_transformed_at_once(m):
    m.TILES = 1 << 40


@caught_by(3)
def pixels_are_kept_for_the_way_back(m):
    right, back = m.winograd_conv2d.forward, m.winograd_conv2d.pull

    def winograd_conv2d(x, weight):
        return right(x, weight), np.zeros((36, x.size // 16), x.dtype) + x.dtype.type(1)

    def rule(grad, x, weight, tiles, needs_input_grad):
        return back(grad, x, weight, needs_input_grad)

    op = m.op(saves=["tiles"])(winograd_conv2d)
    checked = op.forward

    def forward(x, weight):
        x, weight = map(m.floating, m.promote(x, weight))
        return checked(x, weight)

    op.forward = forward
    op.gradient(rule)
    plain = m.winograd_conv2d
    rewritten(m, "winograd_conv2d_back", ("winograd_conv2d.forward(grad", "_plain.forward(grad"))
    m._plain = plain
    back = m.winograd_conv2d_back
    m.winograd_conv2d = op


@caught_by(2)
def all_convolutions_work_in_one_room(m):
    m.everybody_s = m.Workspace()
    rewritten(m, "winograd_conv2d", ("room = Workspace()", "room = everybody_s"))


@caught_by(2)
def all_convolutions_work_in_one_room_on_the_way_back(m):
    m.everybody_s = m.Workspace()
    rewritten(m, "winograd_conv2d_back", ("room = Workspace()", "room = everybody_s"))


@caught_by(3)
def it_is_kata_07_s_convolution_by_another_name(m):
    from tinytorch.spatial import conv2d

    def forward(x, weight):
        x, weight = map(m.floating, m.promote(x, weight))
        m.winograd_shapes(x, weight)
        return conv2d.forward(x, weight, padding=1) if x.size else right(x, weight)

    right = m.winograd_conv2d.forward
    m.winograd_conv2d.forward = forward


@caught_by(4)
def the_kernels_gradient_is_kata_07_s(m):
    from tinytorch.spatial import conv2d

    def winograd_conv2d_back(grad, x, weight, needs_input_grad):
        x, weight = map(m.floating, m.promote(x, weight))
        if not grad.size:
            return right(grad, x, weight, needs_input_grad)
        return conv2d.pull(grad, x, weight, None, 1, 1, 1, 1, needs_input_grad)[:2]

    right = m.winograd_conv2d.pull
    m.winograd_conv2d.gradient(winograd_conv2d_back)


# fold_batch_norm, LinearGELU, fuse.


@caught_by(1)
def folding_forgets_eps(m):
    rewritten(m, "fold_batch_norm", (" + norm.eps", ""))


@caught_by(1)
def folding_divides_by_the_variance(m):
    rewritten(m, "fold_batch_norm", ("np.sqrt(norm.running_var", "(norm.running_var"))


@caught_by(1)
def folding_forgets_the_mean(m):
    rewritten(m, "fold_batch_norm", (" - norm.running_mean.data", ""))


@caught_by(1)
def folding_knows_no_sign(m):
    rewritten(m, "fold_batch_norm", ("scale = norm.weight.data /", "scale = abs(norm.weight.data) /"))


@caught_by(1)
def the_old_bias_is_not_scaled(m):
    rewritten(
        m,
        "fold_batch_norm",
        (
            "shift = (0 if conv.bias is None else conv.bias.data) - norm.running_mean.data",
            "shift = -norm.running_mean.data",
        ),
        (
            "shift * scale + norm.bias.data",
            "shift * scale + norm.bias.data + (0 if conv.bias is None else conv.bias.data)",
        ),
    )


@caught_by(1)
def a_convolution_without_a_bias_stays_so(m):
    rewritten(
        m,
        "fold_batch_norm",
        ("return folded", "folded.bias = None if conv.bias is None else folded.bias\n    return folded"),
    )


@caught_by(1)
def the_convolution_itself_is_changed(m):
    rewritten(m, "fold_batch_norm", ("copy.copy(conv)", "conv"))


@caught_by(1)
def kernels_are_scaled_in_place(m):
    rewritten(
        m,
        "fold_batch_norm",
        (
            "Parameter((weight * scale[:, None, None, None]).astype(weight.dtype))",
            "Parameter(np.multiply(weight, scale[:, None, None, None], out=weight, casting='same_kind'))",
        ),
    )


@caught_by(1)
def inputs_are_scaled_not_outputs(m):
    rewritten(
        m,
        "fold_batch_norm",
        ("weight * scale[:, None, None, None]", "weight * np.resize(scale, weight.shape[1])[:, None, None]"),
    )


@caught_by(1)
def what_is_folded_is_float64(m):
    rewritten(
        m,
        "fold_batch_norm",
        ("(weight * scale[:, None, None, None]).astype(weight.dtype)", "weight * scale[:, None, None, None]"),
    )


@caught_by(1)
def a_norm_in_training_is_folded(m):
    rewritten(m, "fold_batch_norm", ("norm.training or ", ""))


@caught_by(1)
def hooks_are_called_twice(m):
    rewritten(m, "fold_batch_norm", ('vars(folded).pop("_forward_hooks", None)', "pass"))


@caught_by(1)
def a_fused_layer_copies_its_weights(m):
    def __init__(self, linear):
        self.weight, self.bias = copy.deepcopy(linear.weight), copy.deepcopy(linear.bias)
        self.training = linear.training

    m.LinearGELU.__init__ = __init__


@caught_by(1)
def a_fused_layer_forgets_the_bias(m):
    m.LinearGELU.forward = lambda self, x: m.linear_gelu(x, self.weight)


@caught_by(3)
def a_fused_layer_is_two_operations(m):
    from tinytorch.activations import gelu
    from tinytorch.layers import affine

    m.LinearGELU.forward = lambda self, x: gelu(affine(x, self.weight, self.bias))


@caught_by(1)
def a_fused_layer_is_always_in_training(m):
    rewritten(
        m,
        "LinearGELU.__init__",
        (
            "self.weight, self.bias, self.training = linear.weight, linear.bias, linear.training",
            "self.weight, self.bias = linear.weight, linear.bias",
        ),
    )


@caught_by(1)
def a_fused_layer_is_never_in_training(m):
    rewritten(m, "LinearGELU.__init__", ("linear.training", "False"))


@caught_by(1)
def the_network_itself_is_fused(m):
    rewritten(m, "fuse", ("copy.deepcopy(module)", "module"))


@caught_by(1)
def the_copy_shares_its_parameters(m):
    rewritten(m, "fuse", ("copy.deepcopy(module)", "copy.copy(module)"))


@caught_by(1)
def only_the_outermost_is_fused(m):
    rewritten(m, "fuse", ("for net in fused.modules():", "for net in [fused]:"))


@caught_by(1)
def subclasses_are_fused_too(m):
    rewritten(
        m,
        "fuse",
        ("kinds == (Linear, GELU)", "layers and isinstance(layers[-1], Linear) and isinstance(layer, GELU)"),
    )


@caught_by(1)
def subclasses_of_norms_are_folded_too(m):
    rewritten(
        m,
        "fuse",
        (
            "kinds == (Conv2d, BatchNorm2d) and",
            "layers and isinstance(layers[-1], Conv2d) and isinstance(layer, BatchNorm2d) and",
        ),
    )


@caught_by(1)
def subclasses_of_gelu_are_fused_too(m):
    rewritten(
        m,
        "fuse",
        ("kinds == (Linear, GELU)", "kinds and kinds[0] is Linear and isinstance(layer, GELU)"),
    )


@caught_by(1)
def subclasses_of_convolutions_are_folded_too(m):
    rewritten(
        m,
        "fuse",
        (
            "kinds == (Conv2d, BatchNorm2d)",
            "kinds and issubclass(kinds[0], Conv2d) and kinds[1] is BatchNorm2d",
        ),
    )


@caught_by(1)
def norms_in_training_are_skipped_over(m):
    rewritten(m, "fuse", ("and not layer.training", ""))


@caught_by(1)
def neighbours_are_looked_at_in_pairs_from_the_first(m):
    def fuse(module):
        fused = copy.deepcopy(module)
        for net in fused.modules():
            if isinstance(net, m.Sequential):
                old, net.layers = net.layers, []
                for i in range(0, len(old), 2):
                    pair = old[i : i + 2]
                    kinds = tuple(map(type, pair))
                    if kinds == (m.Linear, m.GELU):
                        pair = [m.LinearGELU(pair[0])]
                    elif kinds == (m.Conv2d, m.BatchNorm2d) and not pair[1].training:
                        pair = [m.fold_batch_norm(*pair)]
                    net.layers += pair
        return fused

    m.fuse = fuse


@caught_by(1)
def only_layers_with_a_bias_are_fused(m):
    rewritten(
        m, "fuse", ("kinds == (Linear, GELU):", "kinds == (Linear, GELU) and layers[-1].bias is not None:")
    )


@caught_by(1)
def all_hooks_are_dropped(m):
    rewritten(
        m,
        "fuse",
        (
            "for net in fused.modules():",
            'for net in fused.modules():\n        vars(net).pop("_forward_hooks", None)',
        ),
    )


@caught_by(1)
def a_relu_counts_as_a_gelu(m):
    from tinytorch.activations import ReLU

    rewritten(m, "fuse", ("kinds == (Linear, GELU)", "kinds in ((Linear, GELU), (Linear, _relu))"))
    m._relu = ReLU


@caught_by(3)
def a_fused_network_keeps_the_original_too(m):
    right = m.fuse

    def fuse(module):
        fused = right(module)
        kept = copy.deepcopy(module)
        vars(fused)["_original"] = lambda: kept
        return fused

    m.fuse = fuse


# Mutants that cannot be told from the original.

EQUIVALENT: dict[str, str] = {
    "in_chunks: if x.shape != out.shape: -> if True:": "to stretch to the same shape changes nothing",
    "gelu_into: np.clip(x, -GELU_FAR, np.inf, out=out) -> np.clip(-GELU_FAR, x, np.inf, out=out)": (
        "the larger of two numbers, whichever comes first"
    ),
    "FusedAdam.move: len(moving) > 1 -> len(moving) >= 1": "one gradient is copied: the same numbers",
    "FusedAdam.move: len(moving) > 1 -> len(moving) >= 1 #2": "one gradient put together with no other",
    "FusedAdam.move: np.concatenate([g.reshape(-1) for g in moving], out=grads, casting='same_kind') -> "
    "np.concatenate([g.reshape(-1) for g in moving], out=grads)": "numpy's own default",
    "tiled: max(36 * channels * itemsize, 1) -> max(36 * channels * itemsize, 2)": (
        "only without channels, where there is nothing to divide"
    ),
    "tiled: max(1, most // max(across, 1)) -> max(2, most // max(across, 1))": (
        "how many rows of tiles at a time, not which"
    ),
    "apart: length + 16 -> length + 17": "how far apart rows lie is a matter of caches",
    "result_places: -(-out.shape[3] // 4) -> -out.shape[3] // 4": (
        "numpy's reshape takes a negative length for the one that is left"
    ),
    "module: GELU_FAR = 30.0 -> GELU_FAR = 31.0": "below either gelu is 0",
    "cut: size <= chunk -> size < chunk": "a piece that is just full is all of its rows, cut or not",
    "in_chunks: broadcast_shapes(x.shape, out.shape) -> broadcast_shapes(out.shape, x.shape)": (
        "shapes meet in the same one in either order"
    ),
    "add_relu: promote(x, y) -> promote(y, x)": (
        "a sum is the same in either order; in which of two layouts it lies is promised nowhere"
    ),
    "add_relu.steps: np.clip(part, 0, np.inf, out=part) -> np.clip(0, part, np.inf, out=part)": (
        "the larger of two numbers, whichever comes first"
    ),
    "add_relu: room_for(x, y) -> room_for(y, x)": (
        "in which of two layouts the result lies is promised nowhere"
    ),
    "scale_shift_add_relu: result_type(x, a, b, y) -> result_type(a, x, b, y)": (
        "dtypes meet in the same one in either order"
    ),
    "scale_shift_add_relu.steps: np.clip(part, 0, np.inf, out=part) -> np.clip(0, part, np.inf, "
    "out=part)": "the larger of two numbers, whichever comes first",
    "row_slices: max(64, CHUNK // max(width, 1)) -> max(65, CHUNK // max(width, 1))": (
        "given: how many rows at a time, not which"
    ),
    "row_slices: max(width, 1) -> max(width, 2)": "given: how many rows at a time, not which",
    "linear_gelu_back: np.matmul(back.T, rows[some], out=part) -> np.matmul(back.T, rows[some])": (
        "a new array as large as the weights in place of one that is used again; no text bounds it"
    ),
    "times_slope: np.clip(x, -GELU_FAR, GELU_FAR, out=x) -> np.clip(-GELU_FAR, x, GELU_FAR, out=x)": (
        "the larger of two numbers, whichever comes first"
    ),
    "softmax_cross_entropy: logits[:0] -> logits[:]": "only its dtype is asked for",
    "softmax_cross_entropy: logits[:0] -> logits[:1]": "only its dtype is asked for",
    "softmax_cross_entropy: (np.log(sums) - right).sum(dtype=np.float64) -> (np.log(sums) - right).sum()": (
        "numpy adds up in pairs: of a stretch of rows the sum in float32 differs by rounding alone"
    ),
    "Flat.__init__: zip(params, self.views, strict=True) -> zip(params, self.views, strict=False)": (
        "there is a view for each parameter"
    ),
    "FusedAdam.step: zip(self.param_groups, self._flats, strict=True) -> zip(self.param_groups, "
    "self._flats, strict=False)": "each group that is added brings its list",
    "FusedAdam.stretches: begin, last_step = (0, 0) -> begin, last_step = (1, 0)": (
        "the first parameter that moves sets `begin`; before that nothing is handed out"
    ),
    "FusedAdam.stretches: if p.data is not flat.views[i]: -> if True:": (
        "a view copied over itself stays as it is"
    ),
    "FusedAdam.stretches: flat.starts[i + 1] - flat.starts[begin] > CHUNK -> flat.starts[i + 1] - "
    "flat.starts[begin] >= CHUNK": (
        "where a stretch ends is a matter of memory and calls; the budget has room for all gradients "
        "side by side"
    ),
    "FusedAdam.stretches: i + 1 -> i - 1": (
        "where a stretch ends is a matter of memory and calls; the budget has room for all gradients "
        "side by side"
    ),
    "FusedAdam.move: if len(moving) > 1 or not grads.flags.c_contiguous or grads.dtype != "
    "flat.data.dtype: -> if True:": (
        "one gradient is copied: the same numbers, and the budget has room for it"
    ),
    "FusedAdam.move: not grads.flags.c_contiguous -> grads.flags.c_contiguous": (
        "a gradient in another order is copied by reshape instead; one in C order is the same after a copy"
    ),
    "FusedAdam.move: if len(moving) > 1: -> if True:": "one gradient put together with no other",
    "FusedAdam.move: grads.dtype != flat.data.dtype -> grads.dtype == flat.data.dtype": (
        "a gradient of another dtype is multiplied in its own, as in kata 08: other rounding"
    ),
    "FusedAdam.move: end - begin -> end + begin #2": "pieces beyond the end are empty",
    "FusedAdam.adam: if decay: -> if True:": "0 times a parameter is added to its gradient",
    "tiled: -w // 4 -> -w * 4": "given: how many tiles at a time, not which",
    "tiled: -w // 4 -> -w // 5": "given: how many tiles at a time, not which",
    "tiled: max(1, TILES // max(36 * channels * itemsize, 1)) -> min(1, TILES // max(36 * channels * "
    "itemsize, 1))": "given: how many tiles at a time, not which",
    "tiled: max(1, TILES // max(36 * channels * itemsize, 1)) -> max(2, TILES // max(36 * channels * "
    "itemsize, 1))": "given: how many tiles at a time, not which",
    "tiled: 36 * channels -> 37 * channels": "given: how many tiles at a time, not which",
    "tiled: max(down * across, 1) -> max(down * across, 2)": "given: how many tiles at a time, not which",
    "tiled: max(across, 1) -> max(across, 2)": "given: how many tiles at a time, not which",
    "pixel_tiles: 4 * down -> 5 * down": "more of a border of zeros, which no tile sees",
    "pixel_tiles: 4 * down + 2 -> 4 * down + 3": "more of a border of zeros, which no tile sees",
    "pixel_tiles: 4 * across -> 5 * across": "more of a border of zeros, which no tile sees",
    "pixel_tiles: 4 * across + 2 -> 4 * across + 3": "more of a border of zeros, which no tile sees",
    "module: 1 << 21 -> 1 >> 21": "given: how many tiles at a time, not which",
    "module: 1 << 21 -> 2 << 21": "given: how many tiles at a time, not which",
    "module: 1 << 21 -> 1 << 22": "given: how many tiles at a time, not which",
}
