"""The wire between husk's processes, for tests: src/proto/wire.def, read and obeyed."""

import os
import re
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
DEF = os.path.join(HERE, "..", "..", "src", "proto", "wire.def")

MAGIC = b"\xff" * 8 + b"huskwire"
WINDOW = 512 << 10
DATA_MAX = 128 << 10
TTY, STDIN_OPEN, READ_ONLY = 1, 2, 4
DATA = ("STDIN", "STDOUT", "STDERR")


def load():
    """{name: (number, [(type, field)])}, {number: name}"""
    messages, fields = {}, []
    pattern = re.compile(r"^WIRE_(BEGIN|FIELD|END)\((.*?)\)", re.M)
    for kind, args in pattern.findall(open(DEF).read()):
        args = [a.strip() for a in args.split(",")]
        if kind == "BEGIN":
            fields = []
            messages[args[0]] = (int(args[2]), fields)
        elif kind == "FIELD":
            fields.append((args[1], args[2]))
    return messages, {number: name for name, (number, _) in messages.items()}


MESSAGES, NAMES = load()


def pack_bytes(data):
    return struct.pack("<I", len(data)) + data


def pack_str(text):
    return pack_bytes(text.encode() + b"\0" if text else b"")


PACK = {
    "u32": lambda v: struct.pack("<I", v or 0),
    "i32": lambda v: struct.pack("<i", v or 0),
    "u64": lambda v: struct.pack("<Q", v or 0),
    "str": pack_str,
    "blob": lambda v: pack_bytes(v or b""),
    "strv": lambda v: struct.pack("<I", len(v or [])) + b"".join(map(pack_str, v or [])),
}


def frame(name, stream=0, payload=b""):
    return struct.pack("<IHHI", len(payload), MESSAGES[name][0], 0, stream) + payload


def message(name, /, stream=0, **values):
    fields = MESSAGES[name][1]
    unknown = set(values) - {f for _, f in fields}
    assert not unknown, f"{name} has no {unknown}"
    return frame(name, stream, b"".join(PACK[t](values.get(f)) for t, f in fields))


def unpack(name, payload):
    at, out = 0, {}

    def number(format_, size):
        nonlocal at
        at += size
        return struct.unpack_from(format_, payload, at - size)[0]

    def blob():
        nonlocal at
        size = number("<I", 4)
        at += size
        return payload[at - size:at]

    def text():
        return blob().rstrip(b"\0").decode(errors="replace")

    kinds = {"u32": lambda: number("<I", 4), "i32": lambda: number("<i", 4),
             "u64": lambda: number("<Q", 8), "str": text, "blob": blob,
             "strv": lambda: [text() for _ in range(number("<I", 4))]}
    for kind, field in MESSAGES[name][1]:
        out[field] = kinds[kind]()
    return out
