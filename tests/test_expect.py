"""`expect` accepts what is right, written in whatever way, and says what is wrong with the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dojo.expect import difference, expect, expect_error


class Tensor:
    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)


X = np.arange(6.0).reshape(2, 3)

RIGHT: list[tuple[Any, Any]] = [
    (3, 3),
    (np.int64(3), 3),
    (0.1 + 0.2, 0.3),
    (np.float32(0.1), 0.1),
    (Tensor(0.3), 0.3),
    (float("nan"), float("nan")),
    (float("inf"), float("inf")),
    (True, True),
    (np.bool_(True), True),
    ("a", "a"),
    (None, None),
    ((2, 3), (2, 3)),
    ([1.0, 0.1 + 0.2], [1.0, 0.3]),
    (X, X.tolist()),
    (Tensor(X), X),
    (X + 1e-13, X),
    (X.astype(np.float32) * np.float32(1.00001), X.astype(np.float32)),
    (np.array([np.nan, np.inf, -np.inf]), np.array([np.nan, np.inf, -np.inf])),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    (np.array([True, False]), [True, False]),
    ((X, 1.0), (X, 1.0)),
]


@pytest.mark.parametrize(("got", "expected"), RIGHT)
def test_what_is_right_passes(got: Any, expected: Any) -> None:
    expect(got, expected)


WRONG: list[tuple[Any, Any, str]] = [
    (4, 3, "came back  4\nexpected   3"),
    (1, True, "that is a int"),
    (True, 1, "that is a bool"),
    (0.31, 0.3, "expected   0.3"),
    (None, 0.3, "expected   0.3"),
    ("a", "b", "'a'"),
    ([2, 3], (2, 3), "that is a list"),
    ((2, 3, 4), (2, 3), "3 items instead of 2"),
    ((2, 4), (2, 3), "at index 1"),
    (None, X, "that is a NoneType, not an array"),
    (X.tolist(), X, "that is a list, not an array"),
    (X[0], X, "shape (3,) instead of (2, 3)"),
    (X.astype(np.float32), X, "dtype float32 instead of float64"),
    (X + 1e-8, X, "worst at"),
    (np.array([1, 2]), [1, 3], "worst at [1] 2 instead of 3, off by 1; 1 of 2 elements differ"),
    (np.array([0.0, np.nan]), [0.0, 1.0], "worst at [1] nan instead of 1.0"),
    (np.array([0.0, 1.0]), [0.0, np.nan], "1 of 2 elements differ"),
    (np.array([0.0, 1e300]), [0.0, np.inf], "1 of 2 elements differ"),
    (np.array([np.inf]), [-np.inf], "inf instead of -inf"),
    (X.T, X, "it looks transposed"),
    (np.arange(9.0).reshape(3, 3).T, np.arange(9.0).reshape(3, 3), "it looks transposed"),
    (-X, X, "it looks negated"),
    (X[::-1], X, "it looks reversed along axis 0"),
    (X[:, ::-1], X, "it looks reversed along axis 1"),
    (X.reshape(3, 2).T.copy(), X, "run down columns"),
    (X.reshape(6), X, "only the shape is not"),
    (X / 2, X, "every element is 0.5 times"),
    (X + 1, X, "every element is 1 too large"),
    (X - 0.5, X, "every element is 0.5 too small"),
]


@pytest.mark.parametrize(("got", "expected", "says"), WRONG)
def test_what_is_wrong_is_explained(got: Any, expected: Any, says: str) -> None:
    with pytest.raises(AssertionError) as caught:
        expect(got, expected)
    assert says in str(caught.value)


def test_rounding_is_not_told_as_a_factor_or_an_offset() -> None:
    for got in (X * (1 + 1e-5), X + np.arange(6).reshape(2, 3) * 1e-5):
        assert "every element is" not in str(difference(got, X, rtol=1e-9))


def test_tolerances_can_be_given() -> None:
    expect(1.01, 1.0, rtol=0.02)
    assert difference(1.01, 1.0, rtol=0.001)
    expect(np.array([1e-9]), [0.0], atol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_tolerances_follow_the_largest_element(scale: float) -> None:
    expect(X * scale + 1e-11 * scale, X * scale)
    assert difference(X * scale + 1e-7 * scale, X * scale)


def test_an_error_may_be_worded_freely() -> None:
    with expect_error(ValueError, "(2, 3)", "Broadcast"):
        raise ValueError("cannot broadcast(2,3)")


def test_a_subclass_of_the_error_is_the_error() -> None:
    with expect_error(ValueError):
        raise UnicodeError("odd")


def test_no_error_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="raised     nothing"), expect_error(ValueError):
        pass


def test_another_error_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="raised     KeyError"), expect_error(ValueError):
        raise KeyError("x")


def test_an_error_that_names_too_little_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="does not mention"), expect_error(ValueError, "(4,)"):
        raise ValueError("bad shapes")


def test_an_unwritten_stub_does_not_pass_for_an_error() -> None:
    """NotImplementedError is a RuntimeError; a blank stub must not satisfy a test of RuntimeErrors."""
    with pytest.raises(NotImplementedError), expect_error(RuntimeError):
        raise NotImplementedError("kata 06.3: unbroadcast")
