"""A project that is installed together with what it depends on."""

import flask
import rich


def main():
    print("one", flask.__name__, rich.__name__)
