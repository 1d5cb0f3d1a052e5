"""Pictures say what they show, in colour and without."""

from __future__ import annotations

import numpy as np
import pytest
from rich.text import Text

from dojo import pictures


def colours(line: Text) -> list[tuple[str, str]]:
    """The colour and background of each character."""
    found = []
    for span in line.spans:
        style = span.style
        assert not isinstance(style, str)
        assert style.color is not None
        assert style.bgcolor is not None
        found.append((style.color.name, style.bgcolor.name))
    return found


def test_a_character_holds_two_pixels() -> None:
    """A 4 x 2 image, red above blue in its first column, is two lines of two characters."""
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[0, 0] = [255, 0, 0]
    pixels[1, 0] = [0, 0, 255]
    drawn = pictures.image(pixels)
    assert [line.plain for line in drawn] == ["▀▀", "▀▀"]
    assert colours(drawn[0])[0] == ("#ff0000", "#0000ff")
    assert colours(drawn[1])[0] == ("#000000", "#000000")


def test_grey_and_an_odd_row() -> None:
    drawn = pictures.image([[0.0, 1.0], [0.5, 2.0], [-1.0, 0.2]])
    assert colours(drawn[0]) == [("#000000", "#808080"), ("#ffffff", "#ffffff")]
    assert colours(drawn[1]) == [("#000000", "#000000"), ("#333333", "#000000")]


def test_a_plain_image_is_of_ascii_shades() -> None:
    drawn = pictures.image(np.array([[0, 255, 0], [0, 255, 255]], np.uint8), plain=True)
    assert [line.plain for line in drawn] == [" @="]
    assert not drawn[0].spans


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        pictures.image(np.zeros((3, 32, 32)))


def test_a_heat_map_spans_its_values() -> None:
    drawn = pictures.heat_map([[-3.0, np.nan], [1.0, -1.0]])
    assert colours(drawn[0]) == [("#000000", "#ffffff"), ("#000000", "#808080")]
    assert pictures.heat_map([[2.0], [2.0]], plain=True)[0].plain == " "


def test_a_sparkline_rises_and_falls() -> None:
    assert pictures.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert pictures.sparkline([1, float("nan"), 0]) == "█?▁"
    assert pictures.sparkline([5.0, 5.0]) == "▄▄"
    assert pictures.sparkline([]) == ""


def test_a_long_sparkline_shows_means() -> None:
    """100 values on 2 columns: the means of each half."""
    assert pictures.sparkline([0.0] * 50 + [1.0] * 50, 2) == "▁█"
    line = pictures.sparkline(np.sin(np.arange(1000) / 50).tolist(), 30, plain=True)
    assert len(line) == 30
    line.encode("ascii")


def test_pictures_stand_side_by_side_while_they_fit() -> None:
    """Three of 4 columns with 2 between: two fit into 10 columns, the third goes below."""
    one = [Text("abcd"), Text("efgh")]
    drawn = pictures.gallery([one] * 3, ["1", "2", "three"], width=10)
    assert [line.plain for line in drawn] == [
        "abcd  abcd",
        "efgh  efgh",
        "1     2",
        "",
        "abcd",
        "efgh",
        "three",
    ]
    assert pictures.gallery([]) == []


def test_a_confusion_matrix_names_its_rows() -> None:
    drawn = pictures.confusion([[10, 2], [0, 7]], ["cat", "horse"], plain=True)
    assert [line.plain for line in drawn] == ["         0  1", "0 cat   10  2", "1 horse  0  7"]
    assert not any(line.spans for line in drawn)


def test_what_was_right_is_green_and_what_was_wrong_is_red() -> None:
    line = pictures.confusion([[3, 1], [0, 4]], ["a", "b"])[1]
    assert [background for _, background in colours(line)] == ["#008200", "#6e0000"]
