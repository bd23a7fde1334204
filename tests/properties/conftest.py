"""A folder of their own for calls that take any word for a path."""

import os

import pytest


@pytest.fixture(autouse=True, scope="module")
def _elsewhere(tmp_path_factory):
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("properties"))
    yield
    os.chdir(before)
