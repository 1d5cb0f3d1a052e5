"""Believable wrong solutions of kata 19.  Each takes the reference and spoils one thing in it."""
# ruff: noqa: E501 (what is changed is written as it stands in the reference)

import numpy as np

from dojo.mistakes import caught_by, rewritten


def _property(m, owner, name, function):
    setattr(getattr(m, owner), name, property(function))


# 19.1, 19.2 StaticCache


@caught_by(1)
def room_is_looked_for_after_writing(m):
    def append(self, k, v):
        k, v = self.check(k, v)
        self.lay_out(k, v)
        start, self.length = self.length, self.length + k.shape[2]
        if self.length > self.max_length:
            raise ValueError(f"{k.shape[2]} more for {self.max_length} that holds {start}")
        for held, x in zip(self.held, (k, v), strict=True):
            held[:, :, start : self.length] = x
        return self.held[0][:, :, : self.length], self.held[1][:, :, : self.length]

    m.StaticCache.append = append


@caught_by(1)
def the_last_place_is_never_used(m):
    rewritten(m, "StaticCache.append", ("end > self.max_length", "end >= self.max_length"))


@caught_by(1)
def a_full_cache_drops_what_does_not_fit(m):
    right = m.StaticCache.append

    def append(self, k, v):
        k, v = self.check(k, v)
        room = self.max_length - self.length
        return right(self, k[:, :, :room], v[:, :, :room])

    m.StaticCache.append = append


@caught_by(1)
def only_the_new_positions_come_back(m):
    rewritten(
        m,
        "StaticCache.append",
        (
            "self.held[0][:, :, :end], self.held[1][:, :, :end]",
            "self.held[0][:, :, start:end], self.held[1][:, :, start:end]",
        ),
    )


@caught_by(1)
def all_of_the_room_comes_back(m):
    rewritten(
        m,
        "StaticCache.append",
        ("self.held[0][:, :, :end], self.held[1][:, :, :end]", "self.held[0], self.held[1]"),
    )


@caught_by(1)
def values_are_keys(m):
    rewritten(
        m,
        "StaticCache.append",
        ("zip(self.held, (k, v), strict=True)", "zip(self.held, (k, k), strict=False)"),
    )


@caught_by(1)
def a_copy_comes_back(m):
    rewritten(
        m,
        "StaticCache.append",
        (
            "self.held[0][:, :, :end], self.held[1][:, :, :end]",
            "self.held[0][:, :, :end].copy(), self.held[1][:, :, :end].copy()",
        ),
    )


@caught_by(3)
def room_grows_by_doubling(m):
    def append(self, k, v):
        k, v = self.check(k, v)
        end = self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(f"{k.shape[2]} more do not fit {self.max_length} that holds {self.length}")
        if self.layout is None:
            self.layout, self.rows = m.Layout.of(k, v), len(k)
            self.held = [np.empty((*x.shape[:2], max(64, x.shape[2]), x.shape[3]), x.dtype) for x in (k, v)]
        if end > self.held[0].shape[2]:
            room = min(self.max_length, max(end, 2 * self.held[0].shape[2]))
            self.held = [
                np.concatenate([x, np.empty((*x.shape[:2], room - x.shape[2], x.shape[3]), x.dtype)], axis=2)
                for x in self.held
            ]
        for held, x in zip(self.held, (k, v), strict=True):
            held[:, :, self.length : end] = x
        self.length = end
        return self.held[0][:, :, :end], self.held[1][:, :, :end]

    def select(self, rows):
        if self.rows is not None:
            self.held = [x[np.asarray(rows, np.intp)] for x in self.held]
            self.rows = len(self.held[0])

    class Doubling(m.StaticCache):
        nbytes = property(
            lambda self: self.rows * self.max_length * self.layout.token_bytes if self.layout else 0
        )

    Doubling.append, Doubling.select = append, select
    m.StaticCache = Doubling


@caught_by(1)
def rows_are_written_over_before_they_are_read(m):
    def select(self, rows):
        if self.rows is None:
            return
        rows, used = np.arange(self.rows)[np.asarray(rows, np.intp)], len(self.positions())
        for i, held in enumerate(self.held):
            fresh = held if len(rows) == self.rows else np.empty((len(rows), *held.shape[1:]), held.dtype)
            for at, row in enumerate(rows):
                fresh[at, :, :used] = held[row, :, :used]
            self.held[i] = fresh
        self.rows = len(rows)

    m.StaticCache.select = select


@caught_by(1)
def rows_that_are_kept_are_not_counted(m):
    rewritten(m, "StaticCache.select", ("self.rows = len(rows)", "pass"))


@caught_by(1)
def keys_are_selected_and_values_forgotten(m):
    rewritten(m, "StaticCache.select", ("in enumerate(self.held)", "in enumerate(self.held[:1])"))


@caught_by(1)
def a_new_cache_cannot_select(m):
    rewritten(m, "StaticCache.select", ("if self.rows is None:\n        return", "pass"))


@caught_by(1)
def room_shrinks_to_what_is_used_when_rows_go(m):
    rewritten(
        m,
        "StaticCache.select",
        (
            "np.empty((len(rows), *held.shape[1:]), held.dtype)",
            "np.empty((len(rows), held.shape[1], max(1, used), held.shape[3]), held.dtype)",
        ),
    )


@caught_by(3)
def the_empty_room_is_copied_too(m):
    rewritten(
        m,
        "StaticCache.select",
        ("held[rows, :, :used]", "held[rows]"),
        ("held[:, :, :used] = chosen", "held[...] = chosen"),
    )


@caught_by(1)
def lengths_are_not_checked(m):
    rewritten(m, "StaticCache.truncate", ("self.check_length(length)", "pass"))


@caught_by(1)
def a_cut_of_so_many_and_not_to_so_many(m):
    rewritten(m, "StaticCache.truncate", ("self.length = length", "self.length -= length"))


@caught_by(1)
def reset_keeps_the_memory(m):
    rewritten(
        m,
        "StaticCache.reset",
        ("self.length, self.rows, self.layout, self.held = 0, None, None, []", "self.length = 0"),
    )


@caught_by(1)
def only_keys_have_bytes(m):
    _property(m, "StaticCache", "nbytes", lambda self: sum(x.nbytes for x in self.held[:1]))


@caught_by(1)
def bytes_of_what_is_used(m):
    _property(m, "StaticCache", "nbytes", lambda self: sum(x[:, :, : self.length].nbytes for x in self.held))


# 19.3 to 19.6 WindowCache


@caught_by(1)
def several_new_ones_see_one_position_less(m):
    rewritten(
        m, "WindowCache.positions", ("self.length - self.window + 1)", "self.length - self.window + 2)")
    )


@caught_by(1)
def several_new_ones_get_the_position_that_none_of_them_sees(m):
    rewritten(m, "WindowCache.positions", ("self.length - self.window + 1)", "self.length - self.window)"))


@caught_by(1)
def sinks_come_twice(m):
    rewritten(
        m,
        "WindowCache.positions",
        ("max(self.sinks, self.length - self.window + 1)", "max(0, self.length - self.window + 1)"),
    )


@caught_by(1)
def all_sinks_are_there_from_the_start(m):
    rewritten(m, "WindowCache.positions", ("np.arange(min(self.sinks, end))", "np.arange(self.sinks)"))


@caught_by(1)
def a_ring_in_the_order_of_the_text(m):
    def positions(self, new=0):
        if new > 1:
            return right(self, new)
        end = self.length + new
        return np.array(sorted({p for p in range(end) if p < self.sinks or p >= end - self.window}), int)

    right = m.WindowCache.positions
    m.WindowCache.positions = positions


@caught_by(1)
def sinks_are_a_part_of_the_window(m):
    right = m.WindowCache.__init__

    def init(self, window, sinks=0):
        right(self, window, sinks)
        self.window = max(1, window - sinks)
        self.max_length = self.window + sinks

    m.WindowCache.__init__ = init


@caught_by(1)
def a_window_shows_what_it_has_before_the_new_one_is_in(m):
    rewritten(
        m, "WindowCache.append", (": min(end, self.max_length)]", ": min(self.length, self.max_length)]")
    )


@caught_by(1)
def what_comes_is_written_before_the_old_is_read(m):
    def append(self, k, v):
        k, v = self.check(k, v)
        self.lay_out(k, v)
        new, end = k.shape[2], self.length + k.shape[2]
        seen = self.slots(self.positions(new)[:-new]) if new > 1 else None
        fresh = np.arange(self.length, end)
        stay = (fresh < self.sinks) | (fresh >= end - self.window)
        for held, x in zip(self.held, (k, v), strict=True):
            held[:, :, self.slots(fresh[stay])] = x[:, :, stay]
        if new > 1:
            every = [
                np.concatenate([x[:, :, seen], y], axis=2) for x, y in zip(self.held, (k, v), strict=True)
            ]
        else:
            every = [x[:, :, : min(end, self.max_length)] for x in self.held]
        self.length = end
        return every[0], every[1]

    m.WindowCache.append = append


@caught_by(1)
def a_prompt_longer_than_the_window_starts_at_its_beginning(m):
    rewritten(
        m, "WindowCache.append", ("(fresh >= end - self.window)", "(fresh < self.length + self.max_length)")
    )


@caught_by(1)
def sinks_of_a_long_prompt_are_lost(m):
    rewritten(m, "WindowCache.append", ("(fresh < self.sinks) | ", ""))


@caught_by(1)
def a_windows_length_stops_at_the_window(m):
    rewritten(m, "WindowCache.append", ("self.length = end", "self.length = min(end, self.max_length)"))


@caught_by(3)
def a_window_is_put_in_order_for_each_token(m):
    def positions(self, new=0):
        if new > 1:
            return right(self, new)
        end = self.length + new
        return np.array(sorted({p for p in range(end) if p < self.sinks or p >= end - self.window}), int)

    def append(self, k, v):
        places = self.positions(k.shape[2])
        keys, values = inner(self, k, v)
        if np.shape(k)[2] > 1:
            return keys, values
        order = self.slots(places)
        return keys[:, :, order], values[:, :, order]

    def slots(self, positions):
        return np.where(
            positions < self.sinks, positions, self.sinks + (positions - self.sinks) % self.window
        )

    right, inner = m.WindowCache.positions, m.WindowCache.append
    m.WindowCache.positions, m.WindowCache.append, m.WindowCache.slots = positions, append, slots


@caught_by(1)
def a_window_keeps_all_and_shows_the_last(m):
    class Shows(m.Cache):
        def __init__(self, window, sinks=0):
            if window < 1 or sinks < 0:
                raise ValueError(f"{window} {sinks}")
            self.window, self.sinks, self.text = window, sinks, []

        def inside(self, end):
            begin = max(min(self.sinks, end), end - self.window)
            return [*range(min(self.sinks, end)), *range(begin, end)]

        def positions(self, new=0):
            if new < 2:
                return np.array(self.inside(self.length + new), int)
            begin = max(min(self.sinks, self.length), self.length - self.window + 1)
            return np.array([*range(min(self.sinks, self.length)), *range(begin, self.length + new)], int)

        def append(self, k, v):
            k, v = self.check(k, v)
            places = self.positions(k.shape[2])
            self.layout, self.rows = m.Layout.of(k, v), len(k)
            self.text = [
                np.concatenate([*old, x], axis=2)
                for old, x in zip([[a] for a in self.text] or [[], []], (k, v), strict=True)
            ]
            self.length += k.shape[2]
            return tuple(x[:, :, places] for x in self.text)

        fit = m.WindowCache.fit

        def select(self, rows):
            if self.rows is not None:
                self.text = [x[np.asarray(rows, np.intp)] for x in self.text]
                self.rows = len(self.text[0])

        def truncate(self, length):
            self.check_length(length)
            if length > self.sinks and max(length - self.window, self.sinks) < self.length - self.window:
                raise ValueError(f"{self.length} {length}")
            self.text = [x[:, :, :length] for x in self.text]
            self.length = length

        def reset(self):
            self.length, self.rows, self.layout, self.text = 0, None, None, []

        nbytes = property(
            lambda self: sum(x[:, :, :1].nbytes * (self.window + self.sinks) for x in self.text)
        )

    m.WindowCache = Shows


@caught_by(1)
def all_new_ones_see_what_the_first_sees(m):
    rewritten(
        m,
        "WindowCache.fit",
        ("np.arange(self.length, self.length + new)[:, None]", "np.full((new, 1), self.length)"),
    )


@caught_by(1)
def a_window_of_one_more(m):
    rewritten(m, "WindowCache.fit", ("places > queries - self.window", "places >= queries - self.window"))


@caught_by(1)
def sinks_are_hidden(m):
    rewritten(m, "WindowCache.fit", ("(places < self.sinks) | ", ""))


@caught_by(1)
def a_mask_is_cut_and_not_put_in_order(m):
    rewritten(m, "WindowCache.fit", ("[..., places]", "[..., -len(places) :]"))


@caught_by(1)
def a_mask_is_left_alone(m):
    rewritten(m, "WindowCache.fit", ("as_array(mask)[..., places]", "as_array(mask)"))


@caught_by(1)
def a_mask_allows_what_the_window_does(m):
    rewritten(m, "WindowCache.fit", ("window & mask", "window | mask"))


@caught_by(1)
def a_single_one_gets_a_mask_too(m):
    rewritten(m, "WindowCache.fit", ("if new < 2:", "if new < 1:"))


@caught_by(1)
def a_window_goes_back_to_anything(m):
    rewritten(m, "WindowCache.truncate", ("if length > self.sinks and", "if False and"))


@caught_by(1)
def a_window_that_has_forgotten_cannot_begin_again(m):
    rewritten(m, "WindowCache.truncate", ("if length > self.sinks and", "if"))


@caught_by(1)
def a_window_goes_back_by_one(m):
    rewritten(m, "WindowCache.truncate", ("< self.length - self.window", "< self.length - self.window - 1"))


@caught_by(1)
def sinks_do_not_help_to_go_back(m):
    rewritten(m, "WindowCache.truncate", ("max(length - self.window, self.sinks)", "length - self.window"))


# 19.7 CachedModel


@caught_by(1)
def one_cache_for_all_blocks(m):
    rewritten(
        m,
        "CachedModel.new_caches",
        ("[self.make() for _ in self.model.new_caches()]", "[self.make()] * len(self.model.new_caches())"),
    )


@caught_by(1)
def the_models_own_caches(m):
    rewritten(
        m,
        "CachedModel.new_caches",
        ("[self.make() for _ in self.model.new_caches()]", "self.model.new_caches()"),
    )


@caught_by(1)
def no_window_for_the_mask(m):
    rewritten(m, "CachedModel.forward", ("if caches:", "if caches and mask is not None:"))


@caught_by(1)
def the_mask_stays_as_it_was(m):
    rewritten(
        m,
        "CachedModel.forward",
        ("mask = caches[0].fit(mask, as_array(ids).shape[1])", "caches[0].fit(None, as_array(ids).shape[1])"),
    )


@caught_by(1)
def positions_are_not_handed_on(m):
    rewritten(m, "CachedModel.forward", ("positions=positions", "positions=None"))


# 19.8 BlockPool


@caught_by(1)
def a_block_starts_without_a_user(m):
    rewritten(m, "BlockPool.allocate", ("self._users[block] = 1", "pass"))


@caught_by(1)
def allocating_adds_to_old_users(m):
    rewritten(m, "BlockPool.allocate", ("self._users[block] = 1", "self._users[block] += 2"))


@caught_by(1)
def an_empty_list_is_the_error(m):
    rewritten(m, "BlockPool.allocate", ("if not self._free:", "if False:"))


@caught_by(1)
def a_block_is_freed_by_its_first_user(m):
    rewritten(m, "BlockPool.release", ("if not self._users[block]:", "if True:"))


@caught_by(1)
def a_block_is_never_freed(m):
    rewritten(m, "BlockPool.release", ("self._free.append(block)", "pass"))


@caught_by(1)
def sharing_what_nobody_uses(m):
    rewritten(m, "BlockPool.share", ("self.check_used(block)", "pass"))


@caught_by(1)
def releasing_twice(m):
    rewritten(m, "BlockPool.release", ("self.check_used(block)", "pass"))


@caught_by(1)
def sharing_changes_nothing(m):
    rewritten(m, "BlockPool.share", ("+= 1", "+= 0"))


@caught_by(1)
def one_list_of_users_for_all_pools(m):
    free, users = {}, {}
    right = m.BlockPool.__init__

    def init(self, blocks, block_size):
        right(self, blocks, block_size)
        self._free = free.setdefault(blocks, self._free)
        self._users = users.setdefault(blocks, self._users)

    m.BlockPool.__init__ = init


@caught_by(4)
def all_blocks_are_looked_through(m):
    _property(m, "BlockPool", "free", lambda self: self._users.count(0))

    def allocate(self):
        if 0 not in self._users:
            raise m.OutOfBlocks(f"all {self.blocks} blocks are in use")
        block = self._users.index(0)
        self._users[block] = 1
        return block

    m.BlockPool.allocate = allocate


# 19.9, 19.10 PagedCache.write and gather


@caught_by(1)
def a_shared_block_is_written_to(m):
    rewritten(m, "PagedCache.write", ("if start % pool.block_size and end > start:", "if False:"))


@caught_by(1)
def every_row_copies_though_one_could_stay(m):
    rewritten(m, "PagedCache.write", ("left[table[-1]] = users - 1", "pass"))


@caught_by(1)
def a_block_with_two_users_is_copied_by_the_first_row_alone(m):
    rewritten(m, "PagedCache.write", ("left[table[-1]] = users - 1", "left[table[-1]] = 1"))


@caught_by(1)
def full_blocks_are_copied(m):
    rewritten(
        m, "PagedCache.write", ("if start % pool.block_size and end > start:", "if start and end > start:")
    )


@caught_by(1)
def writing_nothing_copies(m):
    rewritten(
        m, "PagedCache.write", ("if start % pool.block_size and end > start:", "if start % pool.block_size:")
    )


@caught_by(1)
def copies_are_not_counted(m):
    rewritten(
        m, "PagedCache.write", ("needed = len(tables) * more + len(copied)", "needed = len(tables) * more")
    )


@caught_by(1)
def only_copies_are_counted(m):
    rewritten(m, "PagedCache.write", ("needed = len(tables) * more + len(copied)", "needed = len(copied)"))


@caught_by(1)
def blocks_of_one_row_are_counted(m):
    rewritten(m, "PagedCache.write", ("len(tables) * more", "more"))


@caught_by(1)
def what_was_copied_is_not_released(m):
    rewritten(m, "PagedCache.write", ("pool.release(table[-1])", "pass"))


@caught_by(1)
def keys_are_copied_and_values_are_not(m):
    rewritten(m, "PagedCache.write", ("for held in (pool.keys, pool.values):", "for held in (pool.keys,):"))


@caught_by(1)
def the_next_block_is_allocated_ahead(m):
    rewritten(
        m,
        "PagedCache.write",
        (
            "more = -(-end // pool.block_size) - -(-start // pool.block_size)",
            "more = end // pool.block_size + 1 - (start // pool.block_size + 1 if start else 0)",
        ),
    )


@caught_by(1)
def blocks_for_each_append(m):
    rewritten(
        m,
        "PagedCache.write",
        (
            "more = -(-end // pool.block_size) - -(-start // pool.block_size)",
            "more = -(-(end - start) // pool.block_size)",
        ),
    )


@caught_by(1)
def rows_are_all_given_the_same_table(m):
    rewritten(m, "PagedCache.write", ("self.tables or [[] for _ in k]", "self.tables or [[]] * len(k)"))


@caught_by(1)
def heads_and_rows_are_swapped_by_reshape(m):
    rewritten(m, "PagedCache.write", ("x.swapaxes(0, 1)", "x.reshape(x.shape[1], x.shape[0], *x.shape[2:])"))


@caught_by(4)
def position_by_position(m):
    right = m.PagedCache.write

    def write(self, k, v):
        k, v = self.check(k, v)
        if k.shape[2] < 9 or self.pool.free < 40:
            return right(self, k, v)
        for i in range(k.shape[2]):
            right(self, k[:, :, i : i + 1], v[:, :, i : i + 1])
        return None

    m.PagedCache.write = write


@caught_by(1)
def what_lies_behind_the_text_comes_along(m):
    rewritten(m, "PagedCache.gather", ("[:, :, : stop - start]", "[:, :, :]"))


@caught_by(1)
def blocks_are_gathered_from_the_first(m):
    rewritten(m, "PagedCache.gather", ("blocks[start // size : -(-stop // size)]", "blocks[: count]"))


@caught_by(1)
def stop_may_be_behind_the_end(m):
    rewritten(m, "PagedCache.gather", ("min(stop, self.length)", "stop"))


@caught_by(1)
def the_last_block_is_left_out(m):
    rewritten(m, "PagedCache.gather", ("-(-stop // size)", "stop // size"))


@caught_by(3)
def gathered_and_then_copied_again(m):
    right = m.PagedCache.gather

    def gather(self, start=0, stop=None):
        k, v = right(self, start, stop)
        return k.copy(), v.copy()

    m.PagedCache.gather = gather


@caught_by(1)
def one_block_of_each_row_is_the_first_rows(m):
    rewritten(
        m,
        "PagedCache.gather",
        ("for blocks in self.tables]", "for blocks in [self.tables[0]] * len(self.tables)]"),
    )


# 19.11 PagedCache.select, fork, truncate, reset, nbytes


@caught_by(1)
def rows_are_released_before_they_are_shared(m):
    def select(self, rows):
        if self.rows is None:
            return
        chosen = [list(self.tables[row]) for row in np.arange(self.rows)[np.asarray(rows, np.intp)]]
        for table in self.tables:
            for block in table:
                self.pool.release(block)
        for table in chosen:
            for block in table:
                self.pool.share(block)
        self.tables, self.rows = chosen, len(chosen)

    m.PagedCache.select = select


@caught_by(1)
def dropped_rows_keep_their_blocks(m):
    rewritten(m, "PagedCache.select", ("self.pool.release(block)", "pass"))


@caught_by(1)
def rows_that_are_kept_are_not_shared(m):
    rewritten(
        m, "PagedCache.select", ("self.pool.share(block)", "pass"), ("self.pool.release(block)", "pass")
    )


@caught_by(1)
def rows_kept_twice_have_one_table(m):
    rewritten(m, "PagedCache.select", ("[list(self.tables[row]) for row", "[self.tables[row] for row"))


@caught_by(1)
def blocks_are_shared_before_a_row_is_missed(m):
    def select(self, rows):
        if self.rows is None:
            return
        chosen = []
        for row in np.asarray(rows, np.intp).tolist():
            chosen.append(list(self.tables[int(np.arange(self.rows)[row])]))
            for block in chosen[-1]:
                self.pool.share(block)
        for table in self.tables:
            for block in table:
                self.pool.release(block)
        self.tables, self.rows = chosen, len(chosen)

    m.PagedCache.select = select


@caught_by(3)
def rows_are_copied_when_they_are_kept_twice(m):
    right = m.PagedCache.fork

    def fork(self):
        if self.length < 500:
            return right(self)
        k, v = self.gather()
        other = m.PagedCache(m.BlockPool(self.pool.blocks, self.pool.block_size))
        other.write(k, v)
        return other

    m.PagedCache.fork = fork


@caught_by(1)
def a_fork_has_the_same_tables(m):
    rewritten(m, "PagedCache.fork", ("[list(table) for table in self.tables]", "self.tables"))


@caught_by(1)
def a_forks_blocks_are_not_counted(m):
    rewritten(m, "PagedCache.fork", ("self.pool.share(block)", "pass"))


@caught_by(1)
def a_fork_starts_at_nothing(m):
    rewritten(
        m, "PagedCache.fork", ("other.length, other.rows = self.length, self.rows", "other.rows = self.rows")
    )


@caught_by(1)
def a_block_that_is_half_needed_is_given_back(m):
    rewritten(
        m, "PagedCache.truncate", ("-(-length // self.pool.block_size)", "length // self.pool.block_size")
    )


@caught_by(1)
def blocks_are_given_back_and_stay_in_the_table(m):
    rewritten(m, "PagedCache.truncate", ("del table[-(-length // self.pool.block_size) :]", "pass"))


@caught_by(1)
def blocks_leave_the_table_and_are_not_given_back(m):
    rewritten(m, "PagedCache.truncate", ("self.pool.release(block)", "pass"))


@caught_by(1)
def nothing_is_given_back_until_the_end(m):
    rewritten(
        m,
        "PagedCache.truncate",
        ("for table in self.tables:", "for table in self.tables if length == 0 else []:"),
    )


@caught_by(1)
def reset_leaves_the_rows(m):
    rewritten(m, "PagedCache.reset", ("self.tables, self.rows = [], None", "pass"))


@caught_by(1)
def shared_blocks_count_for_each_row(m):
    _property(m, "PagedCache", "nbytes", lambda self: sum(map(len, self.tables)) * self.pool.block_bytes)


@caught_by(1)
def all_of_the_pool_is_the_caches(m):
    _property(
        m, "PagedCache", "nbytes", lambda self: self.pool.blocks * self.pool.block_bytes if self.tables else 0
    )


# 19.12 paged_attention


@caught_by(1)
def the_future_is_seen(m):
    rewritten(m, "paged_attention", ("np.copyto(scores, -np.inf, where=future)", "pass"))


@caught_by(1)
def queries_stand_at_the_beginning(m):
    rewritten(
        m,
        "paged_attention",
        ("length - queries + np.arange(queries)[:, None]", "np.arange(queries)[:, None]"),
    )


@caught_by(1)
def a_piece_counts_its_positions_from_0(m):
    rewritten(m, "paged_attention", ("start + np.arange(k.shape[2])", "np.arange(k.shape[2])"))


@caught_by(1)
def scores_are_not_scaled(m):
    rewritten(m, "paged_attention", ("q.shape[3] ** -0.5 if scale is None", "1.0 if scale is None"))


@caught_by(1)
def a_scale_that_was_asked_for_is_ignored(m):
    rewritten(m, "paged_attention", ("q.shape[3] ** -0.5 if scale is None else scale", "q.shape[3] ** -0.5"))


@caught_by(1)
def the_mix_is_not_divided(m):
    rewritten(m, "paged_attention", ("(mix / total)", "mix"))


@caught_by(1)
def a_chunk_cuts_blocks(m):
    rewritten(m, "paged_attention", ("max(1, chunk // size) * size", "chunk"))


@caught_by(1)
def more_queries_than_positions(m):
    rewritten(m, "paged_attention", ("if queries > length:", "if False:"))


@caught_by(3)
def all_pages_are_gathered(m):
    rewritten(m, "paged_attention", ("max(1, chunk // size) * size", "(length // size + 1) * size"))


@caught_by(4)
def a_block_at_a_time_of_one(m):
    def paged_attention(q, cache, scale=None, chunk=256):
        if cache.length < 400 or not np.shape(q)[2]:
            return right(q, cache, scale, chunk)
        outs = None
        for _ in range(60):
            outs = right(q, cache, scale, 32)
        return outs

    right = m.paged_attention
    m.paged_attention = paged_attention


# 19.13, 19.14 read_rest and generate_cached


@caught_by(1)
def the_prompt_is_read_again(m):
    rewritten(
        m, "read_rest", ("begin, length = caches[0].length, ids.shape[1]", "begin, length = 0, ids.shape[1]")
    )


@caught_by(1)
def only_the_last_column_is_read(m):
    rewritten(m, "read_rest", ("range(begin, length, chunk)", "[length - 1]"))


@caught_by(1)
def a_chunk_too_many(m):
    rewritten(
        m,
        "read_rest",
        ("range(begin, length, chunk)", "range(begin, length, min(chunk, max(1, length - begin - 1)))"),
    )


@caught_by(1)
def logits_of_the_first_chunk(m):
    rewritten(
        m,
        "read_rest",
        ("return last", "return first"),
        (
            "last: Array = as_array(model(part, caches=caches))[:, -1].copy()",
            "last = as_array(model(part, caches=caches))[:, -1].copy()\n        first = last if start == begin else first",
        ),
    )


@caught_by(1)
def all_logits_come_back(m):
    rewritten(m, "read_rest", ("[:, -1].copy()", ".copy()"))


@caught_by(1)
def nothing_to_read_is_nothing(m):
    rewritten(m, "read_rest", ("if begin >= length:", "if begin > length:"))


@caught_by(1)
def a_chunk_of_none_is_none(m):
    rewritten(m, "read_rest", ("chunk = length if chunk is None else chunk", "chunk = chunk or length"))


@caught_by(3)
def the_logits_of_a_whole_chunk_stay(m):
    rewritten(m, "read_rest", ("[:, -1].copy()", "[:, -1]"))


@caught_by(3)
def the_logits_of_all_chunks_are_joined(m):
    rewritten(
        m,
        "read_rest",
        (
            "for start in range(begin, length, chunk):",
            "every = []\n    for start in range(begin, length, chunk):",
        ),
        (
            "last: Array = as_array(model(part, caches=caches))[:, -1].copy()",
            "every.append(as_array(model(part, caches=caches)))",
        ),
        ("return last", "return np.concatenate(every, axis=1)[:, -1].copy()"),
    )


@caught_by(3)
def chunks_are_not_cut(m):
    right = m.read_rest

    def read_rest(model, ids, caches, chunk=None):
        return right(model, ids, caches, chunk if ids.shape[1] < 200 else None)

    m.read_rest = read_rest


@caught_by(1)
def new_caches_for_every_call(m):
    rewritten(
        m, "generate_cached", ("model.new_caches() if caches is None else caches", "model.new_caches()")
    )


@caught_by(1)
def the_chunk_is_forgotten(m):
    rewritten(
        m, "generate_cached", ("read_rest(model, so_far, caches, chunk)", "read_rest(model, so_far, caches)")
    )


@caught_by(1)
def processors_see_the_empty_columns(m):
    rewritten(m, "generate_cached", ("caches, chunk), so_far)", "caches, chunk), written)"))


@caught_by(1)
def always_the_likeliest(m):
    rewritten(
        m, "generate_cached", ("greedy(logits) if rng is None else sample(logits, rng=rng)", "greedy(logits)")
    )


@caught_by(1)
def the_last_token_is_read_too(m):
    rewritten(
        m,
        "generate_cached",
        (
            "    return written",
            "        model(written[:, caches[0].length :], caches=caches)\n    return written",
        ),
    )


@caught_by(1)
def recorded_while_it_writes(m):
    import contextlib

    rewritten(m, "generate_cached", ("with evaluating(model):", "with nothing():"))
    m.nothing = contextlib.nullcontext


# 19.15, 19.16 PrefixCache


@caught_by(1)
def a_block_is_known_by_its_ids_alone(m):
    rewritten(m, "PrefixCache.find", ("self.known[keys[-1]][0] if keys else 0", "0"))
    rewritten(m, "PrefixCache.keep", ("self.known[keys[-1]][0] if keys else 0", "0"))


@caught_by(1)
def a_block_is_known_by_its_ids_and_place(m):
    rewritten(m, "PrefixCache.find", ("self.known[keys[-1]][0] if keys else 0", "len(keys)"))
    rewritten(m, "PrefixCache.keep", ("self.known[keys[-1]][0] if keys else 0", "i"))


@caught_by(1)
def a_hash_that_forgets_the_order(m):
    rewritten(m, "PrefixCache.find", ("part.tobytes()", "np.sort(part).tobytes()"))
    rewritten(
        m,
        "PrefixCache.keep",
        ("row[i * size : (i + 1) * size].tobytes()", "np.sort(row[i * size : (i + 1) * size]).tobytes()"),
    )


@caught_by(2)
def numbers_are_given_out_again(m):
    rewritten(m, "PrefixCache.keep", ("self.numbers += 1", "self.numbers = len(self.known) + 1"))


@caught_by(1)
def the_whole_prompt_is_found(m):
    rewritten(m, "PrefixCache.start", ("(len(row) - 1) // size", "len(row) // size"))


@caught_by(1)
def blocks_are_found_beyond_a_gap(m):
    rewritten(m, "PrefixCache.find", ("            break", "            continue"))


@caught_by(1)
def misses_are_prompts(m):
    rewritten(
        m, "PrefixCache.start", ("self.misses += len(row) // size - len(keys)", "self.misses += not keys")
    )


@caught_by(1)
def hits_are_tokens(m):
    rewritten(m, "PrefixCache.start", ("self.hits += len(keys)", "self.hits += len(keys) * size"))


@caught_by(1)
def what_is_found_is_not_shared(m):
    rewritten(m, "PrefixCache.start", ("self.pool.share(block)", "pass"))


@caught_by(1)
def every_layer_gets_the_first_layers_blocks(m):
    rewritten(m, "PrefixCache.start", ("self.known[key][1][i]", "self.known[key][1][0]"))


@caught_by(1)
def what_is_found_does_not_count_as_used(m):
    rewritten(m, "PrefixCache.start", ("self.known.move_to_end(key)", "pass"))


@caught_by(1)
def what_is_kept_again_does_not_count_as_used(m):
    rewritten(m, "PrefixCache.keep", ("self.known.move_to_end(key)", "pass"))


@caught_by(1)
def the_beginning_of_a_text_is_older_than_its_end(m):
    for name in ("PrefixCache.start", "PrefixCache.keep"):
        rewritten(m, name, ("for key in reversed(keys):", "for key in keys:"))


@caught_by(1)
def the_newest_are_forgotten(m):
    rewritten(m, "PrefixCache.shrink", ("popitem(last=False)", "popitem()"))


@caught_by(1)
def one_more_than_fits(m):
    rewritten(m, "PrefixCache.keep", ("self.shrink(self.capacity)", "self.shrink(self.capacity + 1)"))


@caught_by(1)
def nothing_is_ever_forgotten(m):
    rewritten(m, "PrefixCache.keep", ("self.shrink(self.capacity)", "pass"))


@caught_by(1)
def what_is_forgotten_keeps_its_blocks(m):
    rewritten(m, "PrefixCache.shrink", ("self.pool.release(block)", "pass"))


@caught_by(1)
def blocks_of_one_layer_are_released(m):
    rewritten(m, "PrefixCache.shrink", ("for block in blocks:", "for block in blocks[:1]:"))


@caught_by(1)
def what_is_kept_is_not_shared(m):
    rewritten(m, "PrefixCache.keep", ("self.pool.share(block)", "pass"))


@caught_by(1)
def half_a_block_is_kept(m):
    rewritten(
        m,
        "PrefixCache.keep",
        ("min(len(row), caches[0].length) // size", "-(-min(len(row), caches[0].length) // size)"),
        ("row = row[: count * size]", "row = np.pad(row, (0, size))[: count * size]"),
    )


@caught_by(1)
def ids_that_were_not_read_are_kept(m):
    rewritten(
        m,
        "PrefixCache.keep",
        ("min(len(row), caches[0].length) // size", "min(len(row) // size, len(caches[0].tables[0]))"),
    )


@caught_by(1)
def known_blocks_are_kept_again(m):
    rewritten(m, "PrefixCache.keep", ("keys = self.find(row)", "keys = []"))


@caught_by(1)
def caches_of_any_number_are_kept(m):
    rewritten(m, "PrefixCache.keep", ("len(caches) != self.layers or ", ""))


@caught_by(1)
def caches_of_several_rows_are_kept(m):
    rewritten(m, "PrefixCache.keep", ("or any(cache.rows != 1 for cache in caches)", ""))


@caught_by(3)
def a_block_is_known_by_all_ids_before_it(m):
    def find(self, row):
        keys, size = [], self.pool.block_size
        for i in range(0, len(row), size):
            if tuple(row[: i + size].tolist()) not in self.known:
                break
            keys.append(tuple(row[: i + size].tolist()))
        return keys

    m.PrefixCache.find = find
    rewritten(
        m,
        "PrefixCache.keep",
        ("before = self.known[keys[-1]][0] if keys else 0", "before = tuple(row[: (i + 1) * size].tolist())"),
        ("keys.append((before, row[i * size : (i + 1) * size].tobytes()))", "keys.append(before)"),
    )


@caught_by(4)
def the_oldest_is_looked_for(m):
    def shrink(self, count=0):
        while len(self.known) > count:
            order = {key: i for i, key in enumerate(self.known)}
            _, blocks = self.known.pop(min(order, key=order.get))
            for block in blocks:
                self.pool.release(block)

    m.PrefixCache.shrink = shrink


# 19.17 accept


@caught_by(1)
def the_shares_are_turned_over(m):
    rewritten(m, "accept", ("rng.random() * q[i, x] >= p[i, x]", "rng.random() * p[i, x] >= q[i, x]"))


@caught_by(1)
def only_what_the_target_likes_better_stands(m):
    rewritten(m, "accept", ("rng.random() * q[i, x] >= p[i, x]", "q[i, x] > p[i, x]"))


@caught_by(1)
def a_guess_stands_with_the_targets_probability(m):
    rewritten(m, "accept", ("rng.random() * q[i, x] >= p[i, x]", "rng.random() >= p[i, x]"))


@caught_by(1)
def all_guesses_stand(m):
    rewritten(m, "accept", ("rng.random() * q[i, x] >= p[i, x]", "False"))


@caught_by(1)
def the_replacement_is_the_targets(m):
    rewritten(m, "accept", ("more = np.maximum(p[i] - q[i], 0)", "more = p[i]"))


@caught_by(1)
def the_replacement_is_what_differs(m):
    rewritten(m, "accept", ("np.maximum(p[i] - q[i], 0)", "abs(p[i] - q[i])"))


@caught_by(1)
def the_replacement_is_the_likeliest(m):
    rewritten(m, "accept", ("draw(more if more.any() else p[i], rng)", "int(p[i].argmax())"))


@caught_by(1)
def what_falls_stays(m):
    rewritten(m, "accept", ("[*drafted[:i], draw", "[*drafted[: i + 1], draw"))


@caught_by(1)
def a_draft_that_stands_gets_nothing_more(m):
    rewritten(
        m,
        "accept",
        ("return np.array([*drafted, draw(p[k], rng)], np.int64)", "return np.array(drafted, np.int64)"),
    )


@caught_by(1)
def the_one_more_is_drawn_from_the_row_before(m):
    rewritten(m, "accept", ("draw(p[k], rng)", "draw(p[k - 1], rng)"))


@caught_by(1)
def a_row_of_zeros_is_drawn_from(m):
    rewritten(m, "accept", ("more if more.any() else p[i]", "more"))


@caught_by(2)
def one_random_number_for_the_whole_draft(m):
    rewritten(
        m,
        "accept",
        (
            "for i, x in enumerate(drafted.tolist()):",
            "u = rng.random()\n    for i, x in enumerate(drafted.tolist()):",
        ),
        ("rng.random() * q[i, x]", "u * q[i, x]"),
    )


@caught_by(1)
def dice_of_its_own(m):
    rewritten(m, "accept", ("rng.random() * q", "np.random.random() * q"))


@caught_by(1)
def shapes_are_not_looked_at(m):
    rewritten(
        m,
        "accept",
        (
            "if drafted.ndim != 1 or q.ndim != 2 or len(q) != k or p.shape != (k + 1, q.shape[1]):",
            "if False:",
        ),
    )


# 19.18 speculative_generate


@caught_by(1)
def the_targets_caches_are_not_cut(m):
    rewritten(m, "speculative_generate", ("for cache in (*mine, *theirs):", "for cache in theirs:"))


@caught_by(1)
def the_drafts_caches_are_not_cut(m):
    rewritten(m, "speculative_generate", ("for cache in (*mine, *theirs):", "for cache in mine:"))


@caught_by(1)
def caches_are_cut_one_too_far(m):
    rewritten(m, "speculative_generate", ("min(cache.length, end - 1)", "min(cache.length, end - 2)"))


@caught_by(1)
def caches_keep_the_last_token(m):
    rewritten(m, "speculative_generate", ("min(cache.length, end - 1)", "min(cache.length, end)"))


@caught_by(1)
def more_is_written_than_was_asked_for(m):
    rewritten(
        m,
        "speculative_generate",
        ("min(k, total - end - 1)", "k"),
        ("np.zeros((1, max_new_tokens), np.int64)", "np.zeros((1, max_new_tokens + k + 1), np.int64)"),
        ("StaticCache(total)", "StaticCache(total + k + 1)"),
    )


@caught_by(1)
def the_last_guess_is_wasted(m):
    rewritten(
        m,
        "speculative_generate",
        ("min(k, total - end - 1)", "min(k, total - end)"),
        ("np.zeros((1, max_new_tokens), np.int64)", "np.zeros((1, max_new_tokens + 1), np.int64)"),
        ("StaticCache(total)", "StaticCache(total + 1)"),
        ("return Speculation(written,", "return Speculation(written[:, :total],"),
    )


@caught_by(1)
def the_target_checks_guess_by_guess(m):
    rewritten(
        m,
        "speculative_generate",
        (
            "logits = as_array(target(fresh, caches=mine))[0, -len(guesses) - 1 :]",
            "logits = np.concatenate([as_array(target(fresh[:, i : i + 1], caches=mine))[0] for i in range(fresh.shape[1])])[-len(guesses) - 1 :]",
        ),
    )


@caught_by(1)
def processors_only_for_the_target(m):
    rewritten(
        m,
        "speculative_generate",
        (
            "logits = process(read_rest(draft, written[:, :i], theirs), written[:, :i])",
            "logits = read_rest(draft, written[:, :i], theirs)",
        ),
    )


@caught_by(1)
def processors_only_for_the_draft(m):
    rewritten(
        m,
        "speculative_generate",
        ("[process(logits[i : i + 1], written[:, : end + i]) for", "[logits[i : i + 1] for"),
    )


@caught_by(1)
def processors_see_the_text_before_the_draft(m):
    rewritten(m, "speculative_generate", ("written[:, : end + i]) for", "written[:, :end]) for"))


@caught_by(2)
def drafts_are_the_likeliest_and_not_drawn(m):
    rewritten(
        m,
        "speculative_generate",
        ("written[0, i] = draw(likely[-1], dice)", "written[0, i] = likely[-1].argmax()"),
    )


@caught_by(1)
def the_rows_are_one_off(m):
    rewritten(m, "speculative_generate", ("[0, -len(guesses) - 1 :]", "[0, : len(guesses) + 1]"))


@caught_by(1)
def calls_are_tokens(m):
    rewritten(m, "speculative_generate", ("calls + 1,", "calls + fresh.shape[1],"))


@caught_by(1)
def what_was_replaced_counts_as_accepted(m):
    rewritten(m, "speculative_generate", ("accepted + len(got) - 1", "accepted + len(got)"))


@caught_by(1)
def a_draft_of_nothing(m):
    rewritten(m, "speculative_generate", ("if k < 1 or len(prompt) != 1:", "if len(prompt) != 1:"))


@caught_by(1)
def several_rows_are_one(m):
    rewritten(m, "speculative_generate", ("if k < 1 or len(prompt) != 1:", "if k < 1:"))


@caught_by(1)
def a_models_own_caches_are_not_used(m):
    rewritten(
        m,
        "speculative_generate",
        ('cache if hasattr(cache, "truncate") else StaticCache(total)', "StaticCache(total)"),
    )


@caught_by(1)
def the_draft_trains_while_it_guesses(m):
    rewritten(
        m, "speculative_generate", ("with evaluating(target), evaluating(draft):", "with evaluating(target):")
    )


@caught_by(1)
def no_draft_at_all(m):
    def speculative_generate(target, draft, ids, max_new_tokens, k=4, *, processors=(), rng=None):
        text = m.generate_cached(target, ids, max_new_tokens, processors=processors, rng=rng)
        return m.Speculation(text, max_new_tokens, 0, 0)

    m.speculative_generate = speculative_generate


# 19.19 costs


@caught_by(1)
def the_last_token_is_read(m):
    rewritten(
        m,
        "generation_cost",
        ("prompt + new - 1 if new else 0", "prompt + new if new else 0"),
        ("range(1, prompt + new)", "range(1, prompt + new + 1)"),
    )


@caught_by(1)
def nothing_new_costs_the_prompt(m):
    rewritten(m, "generation_cost", ("prompt + new - 1 if new else 0", "prompt + new - 1"))


@caught_by(1)
def the_prompt_is_not_counted(m):
    rewritten(m, "generation_cost", ('"tokens": last,', '"tokens": new,'))


@caught_by(1)
def a_query_does_not_see_itself(m):
    rewritten(
        m,
        "generation_cost",
        ("(i if window is None else min(i, window))", "(i - 1 if window is None else min(i - 1, window))"),
    )


@caught_by(1)
def pairs_of_the_future_count_too(m):
    rewritten(m, "generation_cost", ("sum(seen[n] for n in lengths)", "sum(n * n for n in lengths)"))


@caught_by(1)
def windows_are_for_caches_only(m):
    rewritten(
        m, "generation_cost", ("sum(seen[n] for n in lengths)", "sum(n * (n + 1) // 2 for n in lengths)")
    )


@caught_by(1)
def keys_and_no_values(m):
    rewritten(m, "bytes_per_token", ("2 * config.num_layers", "config.num_layers"))


@caught_by(1)
def heads_that_share_keys_are_not_heeded(m):
    rewritten(m, "bytes_per_token", ("config.kv_dim", "config.dim"))


@caught_by(1)
def numbers_are_of_4_bytes(m):
    rewritten(m, "bytes_per_token", ("* itemsize", "* 4"))


@caught_by(1)
def forgotten_positions_are_used(m):
    rewritten(m, "cache_report", ("len(cache.positions())", "cache.length"))


@caught_by(1)
def one_row_is_reported(m):
    rewritten(m, "cache_report", ("cache.rows * len", "len"))


@caught_by(1)
def the_first_cache_is_reported(m):
    rewritten(m, "cache_report", ("reserved += cache.nbytes", "reserved = reserved or cache.nbytes"))


@caught_by(1)
def k_terms_and_not_one_more(m):
    rewritten(m, "speculative_gain", ("range(k + 1)", "range(k)"))


@caught_by(1)
def the_target_costs_nothing(m):
    rewritten(m, "speculative_gain", ("(1 + k * cost)", "max(1, k * cost)"))


@caught_by(1)
def a_rate_of_anything(m):
    rewritten(m, "speculative_gain", ("if not 0 <= rate <= 1:", "if False:"))


# What came through an earlier suite


@caught_by(1)
def rows_are_counted_before_they_are_found(m):
    rewritten(
        m,
        "StaticCache.select",
        (
            "rows, used = np.asarray(rows, np.intp), len(self.positions())",
            "rows, used, before = np.asarray(rows, np.intp), len(self.positions()), self.rows\n    self.rows = len(rows)",
        ),
        ("len(rows) != self.rows", "len(rows) != before"),
    )


@caught_by(1)
def a_cache_cut_to_nothing_is_new(m):
    rewritten(
        m,
        "StaticCache.truncate",
        ("self.length = length", "self.length = length\n    length or self.reset()"),
    )


@caught_by(1)
def pages_without_a_position_have_no_rows_to_select(m):
    rewritten(m, "PagedCache.select", ("if self.rows is None:", "if not self.length:"))


@caught_by(1)
def laid_out_before_room_is_looked_for(m):
    rewritten(m, "StaticCache.append", ("    start, end =", "    self.lay_out(k, v)\n    start, end ="))


@caught_by(1)
def a_pool_is_laid_out_before_blocks_are_counted(m):
    rewritten(
        m,
        "PagedCache.write",
        ("    pool, start, end =", "    self.pool.lay_out(k, v)\n    pool, start, end ="),
    )


@caught_by(3)
def the_first_rows_are_a_view_of_all(m):
    right = m.StaticCache.select

    def select(self, rows):
        if self.rows is None or list(rows) != list(range(len(rows))) or len(rows) > self.rows:
            right(self, rows)
        else:
            self.held, self.rows = [x[: len(rows)] for x in self.held], len(rows)

    m.StaticCache.select = select


@caught_by(4)
def free_blocks_are_counted_each_time(m):
    _property(m, "BlockPool", "free", lambda self: sum(not users for users in self._users))


@caught_by(4)
def a_mask_goes_from_pair_to_pair(m):
    rewritten(
        m,
        "WindowCache.fit",
        (
            "(places < self.sinks) | (places > queries - self.window)",
            "np.array([[p < self.sinks or p > q - self.window for p in places.tolist()] for q in queries[:, 0].tolist()])",
        ),
    )


@caught_by(4)
def a_window_takes_a_prompt_one_by_one(m):
    right = m.WindowCache.append

    def append(self, k, v):
        k, v = self.check(k, v)
        if k.shape[2] < 2:
            return right(self, k, v)
        self.lay_out(k, v)
        seen = self.slots(self.positions(k.shape[2])[: -k.shape[2]])
        every = [np.concatenate([x[:, :, seen], y], axis=2) for x, y in zip(self.held, (k, v), strict=True)]
        for i in range(k.shape[2]):
            right(self, k[:, :, i : i + 1], v[:, :, i : i + 1])
        return every[0], every[1]

    m.WindowCache.append = append


@caught_by(1)
def a_scale_of_0_is_none(m):
    rewritten(
        m,
        "paged_attention",
        ("(q.shape[3] ** -0.5 if scale is None else scale)", "(scale or q.shape[3] ** -0.5)"),
    )


@caught_by(1)
def large_scores_overflow(m):
    def absorb(scores, v, top, total, mix):
        weights = np.exp(scores)
        total += weights.sum(axis=-1, keepdims=True)
        mix += weights @ v

    m.absorb = absorb


@caught_by(1)
def a_model_trains_no_more_after_an_error(m):
    right = m.generate_cached

    def generate_cached(model, *args, **kwargs):
        before = model.training
        model.eval()
        text = right(model, *args, **kwargs)
        model.train(before)
        return text

    m.generate_cached = generate_cached


@caught_by(1)
def fewer_caches_than_layers_are_kept(m):
    rewritten(m, "PrefixCache.keep", ("len(caches) != self.layers", "len(caches) > self.layers"))


@caught_by(1)
def caches_without_rows_are_kept(m):
    rewritten(m, "PrefixCache.keep", ("cache.rows != 1 for", "(cache.rows or 1) != 1 for"))


@caught_by(1)
def ids_are_bytes(m):
    rewritten(m, "PrefixCache.find", ("part.tobytes()", "part.astype(np.uint8).tobytes()"))
    rewritten(
        m,
        "PrefixCache.keep",
        (
            "row[i * size : (i + 1) * size].tobytes()",
            "row[i * size : (i + 1) * size].astype(np.uint8).tobytes()",
        ),
    )


@caught_by(1)
def a_little_more_is_nothing(m):
    rewritten(m, "accept", ("more if more.any() else", "more if more.sum() > 1e-3 else"))


@caught_by(1)
def a_new_cache_of_a_pool_in_use_has_no_report(m):
    rewritten(
        m, "cache_report", ("if cache.layout is not None and cache.rows:", "if cache.layout is not None:")
    )


@caught_by(1)
def nan_is_a_rate(m):
    rewritten(m, "speculative_gain", ("if not 0 <= rate <= 1:", "if rate < 0 or rate > 1:"))


@caught_by(1)
def all_ids_are_arrays(m):
    rewritten(m, "CachedModel.forward", ("as_array(ids).shape[1]", "ids.shape[1]"))


@caught_by(1)
def a_model_trains_when_all_is_written(m):
    right = m.generate_cached

    def generate_cached(model, *arguments, **options):
        try:
            return right(model, *arguments, **options)
        finally:
            model.train()

    m.generate_cached = generate_cached


@caught_by(1)
def what_caches_hold_too_much_is_cut(m):
    rewritten(
        m,
        "generate_cached",
        (
            "        for end in range",
            "        for cache in caches if max_new_tokens else ():\n"
            "            if cache.length >= length:\n"
            "                cache.truncate(length - 1)\n"
            "        for end in range",
        ),
    )


@caught_by(1)
def a_chunk_of_none_is_all_while_writing(m):
    rewritten(m, "generate_cached", ("caches, chunk)", "caches, chunk or None)"))


@caught_by(1)
def copies_and_new_blocks_are_counted_apart(m):
    rewritten(
        m, "PagedCache.write", ("len(tables) * more + len(copied)", "max(len(tables) * more, len(copied))")
    )


@caught_by(1)
def caches_are_cut_to_what_is_kept(m):
    rewritten(
        m,
        "PrefixCache.keep",
        (
            "    self.shrink(self.capacity)",
            "    [cache.truncate(count * size) for cache in caches]\n    self.shrink(self.capacity)",
        ),
    )


@caught_by(1)
def ids_that_stand_keep_their_dtype(m):
    rewritten(
        m,
        "accept",
        (
            "np.array([*drafted, draw(p[k], rng)], np.int64)",
            "np.append(drafted, draw(p[k], rng)).astype(drafted.dtype if k else np.int64)",
        ),
    )


@caught_by(1)
def only_caches_of_this_kata_can_be_cut(m):
    rewritten(m, "speculative_generate", ('hasattr(cache, "truncate")', "isinstance(cache, Cache)"))


@caught_by(1)
def pairs_are_halves_of_a_square(m):
    right = m.generation_cost

    def generation_cost(*arguments, **options):
        cost = right(*arguments, **options)
        return {"tokens": cost["tokens"], "pairs": cost["pairs"] * 2 / 2}

    m.generation_cost = generation_cost


@caught_by(1)
def bytes_are_divided_and_not_whole(m):
    rewritten(
        m,
        "bytes_per_token",
        (
            "int(2 * config.num_layers * config.kv_dim * itemsize)",
            "16 * config.num_layers * config.kv_dim * itemsize / 8",
        ),
    )


TWO = "there are always two of each"
SWAPPED = "two axes are swapped, whichever is named first"
NUMBER = "any numbers do that are given out once and are not 0"
EXACTLY = "told apart by a draw of exactly 0.0, or of exactly the ratio: one in 2**53"
EQUIVALENT: dict[str, str] = {
    "BlockPool.__init__: self.values: Array = self.keys -> pass": "`lay_out` sets both before either is read",
    "probabilities: softmax.forward(logits.astype(np.float64), axis=1) -> softmax.forward(logits.astype(np.float64))": (
        "of two axes the last is axis 1, and the last is what kata 04 takes without a word"
    ),
    "Layout: dataclass(frozen=True) -> dataclass(frozen=False)": "nobody changes a layout",
    "StaticCache.append: zip(self.held, (k, v), strict=True) -> zip(self.held, (k, v), strict=False)": TWO,
    "WindowCache.append: zip(self.held, (k, v), strict=True) -> zip(self.held, (k, v), strict=False)": TWO,
    "paged_attention: k.swapaxes(-1, -2) -> k.swapaxes(-2, -1)": SWAPPED,
    "WindowCache.slots: positions < self.sinks -> positions <= self.sinks": "the ring begins where the sinks end",
    "WindowCache.append: fresh < self.sinks -> fresh <= self.sinks": (
        "the first place of the ring, which a later position of the same call takes from it"
    ),
    "WindowCache.append: zip(self.held, (k, v), strict=True) -> zip(self.held, (k, v), strict=False) #2": TWO,
    "BlockPool.__init__: np.empty(0) -> np.empty(1)": "`lay_out` sets both before either is read",
    "PagedCache.__del__: if self.tables: -> if True:": "without tables there is nothing to give back",
    "PagedCache.write: zip((pool.keys, pool.values), (k, v), strict=True) -> zip((pool.keys, pool.values), (k, v), strict=False)": TWO,
    "PagedCache.write: x.swapaxes(0, 1) -> x.swapaxes(1, 0)": SWAPPED,
    "PagedCache.gather: joined[:, :, :stop - start].swapaxes(0, 1) -> joined[:, :, :stop - start].swapaxes(1, 0)": SWAPPED,
    "paged_attention: cache.gather(0, 0) -> cache.gather(1, 0)": "no position either; of both only the shape is looked at",
    "paged_attention: cache.gather(0, 0) -> cache.gather(0, 1)": "one position; of both only the shape is looked at",
    "paged_attention: k.swapaxes(-1, -2) -> k.swapaxes(-1, 2)": SWAPPED,
    "paged_attention: chunk=256 -> chunk=257": "a default that stands in the stub, and of which nothing but memory depends",
    "PrefixCache.__init__: self.numbers = 0 -> self.numbers = 1": NUMBER,
    "PrefixCache.keep: self.numbers += 1 -> self.numbers -= 1": NUMBER,
    "PrefixCache.keep: self.numbers += 1 -> self.numbers += 2": NUMBER,
    "probabilities: logits = as_array(logits) -> pass": "given, and all of this kata hands it arrays",
    "draw: np.searchsorted(line, rng.random() * line[-1], side='right') -> np.searchsorted(line, rng.random() * line[-1])": EXACTLY,
    "accept: rng.random() * q[i, x] >= p[i, x] -> rng.random() * q[i, x] > p[i, x]": EXACTLY,
    "speculative_generate: np.random.default_rng(0) -> np.random.default_rng(1)": (
        "without an rng all probabilities are 0 or 1, whatever is drawn"
    ),
    "speculative_generate: k=4 -> k=5": "a default that stands in the stub",
    "Speculation: dataclass(frozen=True) -> dataclass(frozen=False)": "nobody changes what was counted",
}
