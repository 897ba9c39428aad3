"""What the sequences of all benchmarks have in common."""

import csv

import pytest
from miniatures import davis_test

from corrflow import InputError
from corrflow.benchmarks.benchmark import Sequence
from corrflow.benchmarks.davis import DavisTest
from corrflow.benchmarks.tables import write_csv


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../x", "/x", "a/", "a\0b", 7, None])
def test_a_sequence_name_that_is_not_a_file_name_is_refused(name):
    with pytest.raises(InputError, match=r"sequence .*: expected a file name in UTF-8, wi"):
        Sequence(name, 1)


def test_a_sequence_name_that_is_not_utf8_is_refused():
    with pytest.raises(InputError, match=r"sequence 'a\\udcff': expected .* in UTF-8"):
        Sequence("a\udcff", 1)


@pytest.mark.parametrize("name", ["a", "a b", "..a", "a.b", "Ä-1"])
def test_a_sequence_may_have_any_name_of_a_file(name):
    assert Sequence(name, 1).name == name


def test_a_table_keeps_names_with_commas_and_quotes_in_their_column(tmp_path):
    rows = [["Sequence", "J-Mean"], ['a,b "c"_1', 0.5], ["dog_1", 1.0]]
    write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [rows[0], ['a,b "c"_1', "0.500000"], ["dog_1", "1.000000"]]
    assert (tmp_path / "table.csv").read_text().endswith("\ndog_1,1.000000\n")


def test_a_list_that_points_outside_its_tree_is_refused(tmp_path):
    davis_test(tmp_path)
    (tmp_path / "ImageSets/2017/test-dev.txt").write_text("../480p/aerobatics\n")
    with pytest.raises(InputError, match=r"sequence '\.\./480p/aerobatics': expected"):
        DavisTest().read(tmp_path)
