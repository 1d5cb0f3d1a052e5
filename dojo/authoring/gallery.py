"""The gallery of wrong answers, docs/gallery.md: what a student sees of three common mistakes in each kata.

    python -m dojo.authoring.gallery              all of it, some minutes
    python -m dojo.authoring.gallery 06 13        these katas anew, the others as they are

Each mistake is planted as `dojo check --mistakes` plants it, and what the run prints is shown as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from dojo import compose
from dojo.authoring import mistakes, suites
from dojo.authoring.outcomes import STEADY
from dojo.curriculum import KATAS, ROOT, Kata, find

PAGE = ROOT / "docs" / "gallery.md"
LINES = 24  # of a failure; what is longer is cut
FAILURE = re.compile(r"^_+ (?P<test>test_.+?) _+$\n(?P<body>.*?)(?=^_+ test_|^\d\d \w+: |\Z)", re.M | re.S)
# Where pytest puts a test's files on this machine.
HERE = re.compile(r"(?<=')[^']*[/\\]pytest-of-[^/\\]+[/\\]pytest-\d+[/\\]")
PANEL = re.compile(r"^(?:Next|Read): .*$", re.M)

HEAD = """\
# Wrong answers, and what they look like

Three common mistakes of each kata, and what `pytest katas/NN_name` shows of them: what came back and what
should have, where the worst of it is, and which task, page and hint help. Made by
`python -m dojo.authoring.gallery`.
"""

COMMON: dict[str, tuple[str, str, str]] = {
    "01": ("versions_are_compared_as_text", "nan_is_close_to_anything", "timed_results_are_collected"),
    "02": (
        "strides_count_elements_instead_of_bytes",
        "python_floats_become_float64",
        "arrays_are_joined_two_at_a_time",
    ),
    "03": ("weights_are_inputs_by_outputs", "the_gradients_are_means_over_the_rows", "the_output_is_kept"),
    "04": ("nothing_is_subtracted_before_exp", "the_slope_of_relu_at_0_is_1", "relu_asks_for_its_input"),
    "05": (
        "fans_are_the_wrong_way_round",
        "an_activation_follows_the_last_layer",
        "a_residual_connection_is_let_through",
    ),
    "06": (
        "a_quotient_forgets_to_square_its_divisor",
        "the_last_use_of_a_result_wins",
        "only_new_axes_are_added_up",
    ),
    "07": (
        "the_kernel_is_turned_round",
        "mean_and_variance_are_taken_for_constants",
        "all_columns_are_laid_out_at_once",
    ),
    "08": ("adam_is_not_corrected", "decay_has_the_wrong_sign", "a_step_makes_a_new_array"),
    "09": (
        "numbers_are_read_little_end_first",
        "every_split_is_the_same",
        "photographs_are_read_into_memory",
    ),
    "10": (
        "the_largest_is_not_subtracted_first",
        "the_gradient_of_cross_entropy_is_not_divided_by_the_batch",
        "losses_go_row_by_row",
    ),
    "11": (
        "padding_is_on_the_left",
        "white_space_keeps_its_last_space",
        "a_token_is_looked_for_in_the_list",
    ),
    "12": (
        "of_equal_ids_the_last_one_counts",
        "sines_first_then_cosines",
        "rows_are_added_by_add_at",
    ),
    "13": (
        "a_causal_mask_hides_the_position_itself",
        "scores_are_not_scaled",
        "the_fused_operation_has_all_scores_in_memory",
    ),
    "14": (
        "there_are_no_residuals",
        "eps_is_added_to_the_deviation",
        "mean_and_deviation_are_taken_for_constants",
    ),
    "15": ("temperature_multiplies", "top_p_drops_the_one_that_reaches_p", "all_logits_are_kept_by_a_view"),
    "16": (
        "a_product_counts_only_multiplications",
        "own_time_is_all_time",
        "p_is_one_sided",
    ),
    "17": (
        "what_is_left_along_k_is_left_out",
        "the_second_operand_gets_nothing",
        "gelu_is_done_in_one_piece",
    ),
    "18": ("halves_of_steps_are_rounded_up", "weights_are_parameters", "all_weights_become_floats_first"),
    "19": (
        "what_comes_is_written_before_the_old_is_read",
        "rows_that_are_kept_are_not_shared",
        "all_guesses_stand",
    ),
    "20": ("an_arithmetic_mean", "an_answer_is_the_models_own_buffer", "a_header_is_believed"),
}


def main(argv: Sequence[str]) -> int:
    """Write the page; katas that are not named keep the part that they have."""
    asked = [find(word) for word in argv] or [kata for kata in KATAS if kata.number in COMMON]
    every = parts_of(PAGE.read_text("utf-8")) if PAGE.exists() else {}
    for kata in asked:
        every[kata.number] = part(kata)
        text = "\n".join([HEAD, *(every[number] for number in sorted(every))])
        PAGE.write_text(text, encoding="utf-8", newline="\n")
    return 0


def parts_of(page: str) -> dict[str, str]:
    """A page's parts by the number of their kata."""
    found = re.split(r"^(?=## \d\d )", page, flags=re.M)[1:]
    return {text[3:5]: text.rstrip("\n") + "\n" for text in found}


def part(kata: Kata) -> str:
    """The part of one kata."""
    lines = [f"## {kata}", ""]
    for name in COMMON[kata.number]:
        lines += [f"### {words(name)}", "", "```text", *seen(kata, name), "```", ""]
    return "\n".join(lines)


def words(name: str) -> str:
    """A mistake's name as a phrase."""
    text = name.replace("_", " ")
    return text[0].upper() + text[1:]


def seen(kata: Kata, name: str) -> Iterator[str]:
    """The lines that a student sees of a mistake: its first failure, and what to do next.

    Raises:
        ValueError: the suite let it through.
    """
    source = suites.planted(kata, f"{mistakes.mistakes_file(kata)}{compose.PLANTED}{name}")
    args = ["-m", "pytest", str(kata.path), "--impl", source, "-q", "--no-header", "-p", "no:cacheprovider"]
    _, output = suites.child(args, **{STEADY: "1"})
    failure = FAILURE.search(HERE.sub("/tmp/", output))
    if failure is None:
        raise ValueError(f"{kata}: {name} shows no failure")
    body = failure["body"].rstrip().splitlines()
    yield failure["test"]
    yield from body[:LINES]
    if len(body) > LINES:
        yield "..."
    yield ""
    yield from PANEL.findall(output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
