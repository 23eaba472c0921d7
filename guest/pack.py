#!/usr/bin/env python3
"""Puts the files of a guest together. guest/build.sh calls it.

    pack.py vmlinux BZIMAGE OUT              the ELF kernel inside a bzImage
    pack.py initramfs MODULES TREE INIT BUSYBOX OUT      a cpio, compressed
    pack.py busybox BUSYBOX OUT              the image busybox:latest, as docker-archive

The same inputs give the same bytes: nothing of the time, the user or the order of directories
comes into the output.
"""

import gzip
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile

# What the payload of a bzImage may be compressed with, by its first bytes.
DECOMPRESSORS = [
    (b"\x02\x21\x4c\x18", ["lz4", "-d", "-c"]),
    (b"\x28\xb5\x2f\xfd", ["zstd", "-q", "-d", "-c"]),
    (b"\xfd7zXZ\x00", ["xz", "-d", "-c"]),
    (b"\x1f\x8b", ["gzip", "-d", "-c"]),
    (b"BZh", ["bzip2", "-d", "-c"]),
    (b"\x5d\x00\x00", ["xz", "--format=lzma", "-d", "-c"]),
]

# Offsets of the x86 boot protocol (Documentation/x86/boot.rst in the kernel), version 2.08 on.
SETUP_SECTS, HEADER_MAGIC, PROTOCOL, PAYLOAD = 0x1F1, 0x202, 0x206, 0x248


def fail(text):
    sys.exit("guest: " + text)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path + ".new", "wb") as f:
        f.write(data)
    os.replace(path + ".new", path)


# ---- the kernel ---------------------------------------------------------------------------------


def decompress(data, what):
    for magic, command in DECOMPRESSORS:
        if data.startswith(magic):
            try:
                # The tools complain about the size that the kernel's build puts after the
                # payload, so their status says nothing: the caller looks at the result.
                return subprocess.run(command, input=data, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL).stdout
            except FileNotFoundError:
                fail(f"'{command[0]}' is not installed: it is needed to unpack {what}")
    fail(f"{what} is compressed in a way that is not known")


def vmlinux(image, out):
    data = read(image)
    if data[HEADER_MAGIC:HEADER_MAGIC + 4] != b"HdrS":
        fail(f"'{image}' is not a Linux kernel")
    if struct.unpack_from("<H", data, PROTOCOL)[0] < 0x208:
        fail(f"'{image}' is too old a Linux kernel")
    offset, length = struct.unpack_from("<II", data, PAYLOAD)
    start = ((data[SETUP_SECTS] or 4) + 1) * 512 + offset
    elf = decompress(data[start:start + length], f"'{image}'")
    if not elf.startswith(b"\x7fELF"):
        fail(f"no ELF kernel inside '{image}'")
    write(out, elf)


# ---- the initramfs ------------------------------------------------------------------------------


class Cpio:
    """An archive in the "newc" format (cpio(5)), as the kernel reads it."""

    def __init__(self):
        self.out = bytearray()
        self.count = 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.count += 1
        raw = name.encode() + b"\0"
        fields = [self.count, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0]
        self.out += b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.pad(4)
        self.out += data
        self.pad(4)

    def pad(self, size):
        self.out += bytes(-len(self.out) % size)

    def bytes(self):
        self.add("TRAILER!!!", 0)
        self.pad(512)
        return bytes(self.out)


DIR, FILE, LINK, CHAR = 0o040000, 0o100000, 0o120000, 0o020000


def module_files(tree):
    """Module name, with "_" for "-", to the path of its file."""
    files = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            m = re.fullmatch(r"(.+)\.ko(\.xz|\.zst|\.gz)?", name)
            if m:
                files[m[1].replace("-", "_")] = os.path.join(folder, name)
    return files


# What ends a signed module (struct module_signature and MODULE_SIG_STRING in the kernel's
# include/linux/module_signature.h): the signature, 8 bytes, its size, the text.
SIGNED = b"~Module signature appended~\n"


def without_signature(module):
    """The guest's kernel and its modules have the same source, the host, so to check the one by
    the other proves nothing; but an emulated CPU would spend more time on it than on loading."""
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    return module[:end - 12 - int.from_bytes(module[end - 4:end], "big")]


def module_text(path):
    data = read(path)
    return without_signature(data if path.endswith(".ko") else decompress(data, f"'{path}'"))


def module_order(table, tree):
    """The modules of the table, each after those it depends on: [(stage, name, bytes)]."""
    files, order, seen = module_files(tree), [], set()

    def add(stage, name, wanted_by):
        name = name.replace("-", "_")
        if name in seen:
            return
        seen.add(name)
        if name not in files:
            fail(f"kernel module '{name}' of {wanted_by} is not in '{tree}'")
        text = module_text(files[name])
        # The section .modinfo holds "depends=a,b" among other NUL-terminated strings.
        depends = re.search(rb"\0depends=([^\0]*)\0", text)
        for other in filter(None, (depends[1] if depends else b"").decode().split(",")):
            add(stage, other, f"module '{name}'")
        order.append((stage, name, text))

    for line in open(table):
        words = line.split("#")[0].split()
        if len(words) == 2 and re.fullmatch("early|late|0x[0-9a-f]{4}", words[0]):
            add(words[0], words[1], f"'{table}'")
        elif words:
            fail(f"'{table}': line '{line.strip()}' is not 'early NAME', 'late NAME' or '0x0001 NAME'")
    return order


def initramfs(table, tree, init, busybox, out):
    order = module_order(table, tree)
    archive = Cpio()
    for name in ["bin", "dev", "modules", "proc", "root", "rootfs", "rootfs/image",
                 "rootfs/layer", "rootfs/root", "run", "sys", "tmp"]:
        archive.add(name, DIR | 0o755)
    # Until devtmpfs is mounted, the kernel opens this one for init's messages.
    archive.add("dev/console", CHAR | 0o600, rdev=(5, 1))
    archive.add("bin/busybox", FILE | 0o755, read(busybox))
    archive.add("bin/sh", LINK | 0o777, b"busybox")
    for _, name, text in order:
        archive.add(f"modules/{name}.ko", FILE | 0o644, text)
    listing = "".join(f"{stage} /modules/{name}.ko\n" for stage, name, _ in order)
    archive.add("modules/order", FILE | 0o644, listing.encode())
    archive.add("init", FILE | 0o755, read(init))
    # The kernel has the archive and what it unpacks of it in memory at once: a guest of 64 MiB has no
    # room for both unless one is small.
    write(out, gzip.compress(archive.bytes(), 9, mtime=0))


# ---- the image ----------------------------------------------------------------------------------


class Layer:
    """A tar archive without times and users."""

    def __init__(self):
        self.file = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name, kind, mode, data=b"", link=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
        self.tar.addfile(info, io.BytesIO(data))

    def dir(self, name, mode=0o755):
        self.add(name, tarfile.DIRTYPE, mode)

    def bytes(self):
        self.tar.close()
        return self.file.getvalue()


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""

GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:root
mail:x:8:
audio:x:29:
www-data:x:33:
utmp:x:43:
video:x:44:
users:x:100:
nogroup:x:65534:
"""


def busybox_layer(busybox):
    listed = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, check=True).stdout
    applets = sorted(set(listed.decode().split()) - {"busybox"})
    layer = Layer()
    for name in ["bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "usr/sbin", "var",
                 "var/spool", "var/spool/mail", "var/www"]:
        layer.dir(name)
    layer.dir("root", 0o700)
    layer.dir("tmp", 0o1777)
    layer.add("bin/busybox", tarfile.REGTYPE, 0o755, read(busybox))
    for name in applets:
        layer.add("bin/" + name, tarfile.LNKTYPE, 0o755, link="bin/busybox")
    layer.add("usr/bin/env", tarfile.SYMTYPE, 0o777, link="../../bin/env")
    for name, text in [("group", GROUP), ("passwd", PASSWD), ("shadow", "root:*:::::::\n")]:
        layer.add("etc/" + name, tarfile.REGTYPE, 0o600 if name == "shadow" else 0o644,
                  text.encode())
    return layer.bytes()


def busybox_image(busybox, out):
    data = busybox_layer(busybox)
    digest = hashlib.sha256(data).hexdigest()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
        "history": [{"created": "1970-01-01T00:00:00Z",
                     "created_by": "husk: Debian's busybox-static"}],
    }, separators=(",", ":")).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["busybox:latest"],
                            "Layers": [digest + "/layer.tar"]}], separators=(",", ":")).encode()
    image = Layer()
    image.add(name, tarfile.REGTYPE, 0o644, config)
    image.dir(digest)
    image.add(digest + "/layer.tar", tarfile.REGTYPE, 0o644, data)
    image.add("manifest.json", tarfile.REGTYPE, 0o644, manifest)
    write(out, image.bytes())


COMMANDS = {"vmlinux": (vmlinux, 2), "initramfs": (initramfs, 5), "busybox": (busybox_image, 2)}

if __name__ == "__main__":
    command, arity = COMMANDS.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if not command or len(sys.argv) != arity + 2:
        sys.exit(__doc__)
    try:
        command(*sys.argv[2:])
    except OSError as error:
        fail(f"'{error.filename}': {error.strerror}")
