"""The other verbs give rows for programs too."""

import json

import pytest

from tests.cli.conftest import smalti_cli  # noqa: F401


def rows_of(result):
    assert result.exit_code == 0, result.output
    return {(row["name"], row["against"]): row for row in json.loads(result.stdout)}


def test_bench_data_compares_the_fast_path_with_the_default(smalti_cli):  # noqa: F811
    result = smalti_cli("bench", "data", "--size", "32", "--images", "2", "--repeats", "1", "--json")
    assert {("data fast", "data"), ("data", "decode only")} <= rows_of(result).keys()
    assert "2 JPEGs of 500 x 375 pixels" in result.stderr


def test_bench_encode_takes_a_recipe(smalti_cli):  # noqa: F811
    result = smalti_cli("bench", "encode", "tiny-vqvae", "--size", "16", "--batch", "1", "--repeats", "1", "--json")
    assert rows_of(result).keys() == {("encode bf16", "encode"), ("decode bf16", "decode")}
    assert "images/s of 16 pixels" in result.stderr


@pytest.mark.slow
def test_bench_step_compares_with_the_textbook_schedule(smalti_cli):  # noqa: F811
    arguments = ["--channels", "32", "--size", "32", "--batch", "1", "--repeats", "1", "--json"]
    rows = rows_of(smalti_cli("bench", "step", *arguments))
    assert {("step", "textbook"), ("step before adversary", "textbook"), ("step recompute", "step")} <= rows.keys()
    assert rows["step recompute", "step"]["saved_mib"] < rows["step", "textbook"]["saved_mib"]
