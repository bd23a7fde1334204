"""Damaged files, for whatever reads one: `read_or_refused(read, file, draw(damaged(content)))`."""

import io
import json
import os
import pickle
import zipfile

from hypothesis import strategies as st

PLACES = st.integers(0, 2**24)
LENGTHS = st.integers(1, 64)


def zipped(**members):
    """Return a zip archive of members, given as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bomb(depth=60):
    """Return a list that is small, and has 2**depth leaves."""
    content = [1, 1]
    for _ in range(depth):
        content = [content, content]
    return content


OTHERS = [
    b"", b"\0" * 100, b"PK", b"\x93NUMPY", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"1e999",
    b"\xff\xfe", b"NaN", pickle.dumps({}), pickle.dumps([[]]), zipped(), zipped(images=b"x"),
    zipped(**{"images.npy": zipped(a=b"")}),
]  # fmt: skip
"""Files of other kinds."""


def damaged(content):
    """Return a strategy of what can become of a file: cut, flipped, overwritten, spliced, or
    another one altogether."""

    def flip(place, bit):
        place %= len(content)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]

    def cut(place):
        return content[: place % len(content)]

    def overwrite(place, new):
        place %= len(content)
        return content[:place] + new + content[place + len(new) :]

    def splice(place, skipped, new):
        place %= len(content)
        return content[:place] + new + content[place + skipped :]

    return st.one_of(
        st.builds(flip, PLACES, st.integers(0, 7)),
        st.builds(cut, PLACES),
        st.builds(overwrite, PLACES, st.binary(min_size=1, max_size=16)),
        st.builds(splice, PLACES, LENGTHS, st.binary(max_size=16)),
        st.sampled_from(OTHERS),
        st.binary(max_size=64),
    )


def damaged_json(content):
    """Return a strategy of JSON files of which one entry is another, missing, or there beside one
    of another name."""
    tree = json.loads(content)
    values = st.recursive(
        st.sampled_from([None, True, -1, 0, 3, 1.5, float("nan"), "", "x", 10**30]),
        lambda inside: (
            st.lists(inside, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "loss"]), inside, max_size=2)
        ),
        max_leaves=4,
    )
    edits = st.tuples(st.sampled_from([*tree, "another"]), st.one_of(st.just("missing"), values))

    def edit(change):
        name, value = change
        kept = {key: old for key, old in tree.items() if key != name}
        return json.dumps(kept if value == "missing" else kept | {name: value}).encode()

    return st.one_of(edits.map(edit), damaged(content))


def damaged_pickle(content, marker):
    """Return a strategy of pickles that may run code, which makes the file `marker`, or fill the
    memory."""
    run = Call(os.system, f"touch {marker}")
    opcodes = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    hostile = [
        pickle.dumps(x, protocol)
        for x in (run, [run], {"image_data": run}, bomb())
        for protocol in (0, 2, 4)
    ]
    hostile += [
        pickle.dumps({name: bomb()}) for name in ("image_data", "class_dict", "label_specific")
    ]
    spliced = PLACES.map(lambda place: content[: place % len(content)] + opcodes)
    return st.one_of(st.sampled_from(hostile), spliced, damaged(content))


def read_or_refused(read, file, content):
    """Write a damaged file and read it: return what comes, or None for an error that names the
    file."""
    file.write_bytes(content)
    try:
        return read()
    except (TypeError, ValueError, OSError) as error:
        refused = str(error)
    assert file.name in refused, refused
    return None
