"""The part of tools/bench about images: pulls, layers of every size, storage drivers."""
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

from benchlib import QUICK, RUNS, TOP, Husk, mib, percentile, row, run_once, settle, spread, timed

BIG_MB = 2048            # of the layer with which the memory of workers is measured
SMALL_FILES = 100_000
WATCH_S = 0.02


# ---- memory ----------------------------------------------------------------------------------


class Peaks:
    """The most memory that processes of a daemon have had, while this is open."""

    def __init__(self, husk, name):
        self.husk, self.name, self.found = husk, name, {}
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()

    def watch(self):
        while not self.end.wait(WATCH_S):
            self.look(self.husk.daemon.pid)

    def look(self, pid):
        with contextlib.suppress(OSError, TypeError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                status = Path(f"/proc/{child}/status").read_text()
                if re.search(rf"^Name:\s*{self.name}$", status, re.M):
                    self.found[child] = int(re.search(r"VmHWM:\s*(\d+)", status)[1])
                    self.look(child)  # the one that unpacks beside a transfer

    def all(self):
        return mib(sum(self.found.values()))

    def most(self):
        return mib(max(self.found.values()))


# ---- images ----------------------------------------------------------------------------------


class Hashed:
    """What is written into a file, and its digest."""

    def __init__(self, file):
        self.file, self.hash = file, hashlib.sha256()

    def write(self, data):
        self.hash.update(data)
        return self.file.write(data)


def archive(directory, fill):
    """An OCI layout in a tar, of an image with the one layer that `fill` writes into a tar."""
    blobs = directory / "layout/blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    with open(blobs / "layer", "wb") as file:
        out = Hashed(file)
        with tarfile.open(fileobj=out, mode="w|", bufsize=1 << 20) as tar:
            fill(tar)
    digest = out.hash.hexdigest()
    size = (blobs / "layer").stat().st_size
    (blobs / "layer").rename(blobs / digest)
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(json.dumps(config).encode(), "config.v1+json"),
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                            "digest": f"sha256:{digest}", "size": size}]}
    top = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "bench:1"}
    (directory / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (directory / "layout/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    timed(["tar", "-C", directory / "layout", "-cf", directory / "image.tar", "."])
    return directory / "image.tar"


def fill_big(tar):
    block = os.urandom(1 << 20)

    class Repeated(io.RawIOBase):
        def read(self, size=-1):
            return block[:size]

    info = tarfile.TarInfo("big")
    info.size = BIG_MB << 20
    tar.addfile(info, Repeated())


def fill_small(tar):
    for number in range(SMALL_FILES):
        if number % 1000 == 0:
            folder = tarfile.TarInfo(f"d{number // 1000}")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        info = tarfile.TarInfo(f"d{number // 1000}/f{number}")
        info.size = 100
        tar.addfile(info, io.BytesIO(b"%099d\n" % number))


# ---- registries ------------------------------------------------------------------------------


@contextlib.contextmanager
def registry(directory):
    """The address of a registry of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    config = directory / "registry.yml"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
                      f"{directory}/registry}}}}\nhttp: {{addr: '{address}', secret: none}}\n")
    server = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens():
        with contextlib.suppress(OSError), socket.create_connection(address.split(":"), 1):
            return True
        return False

    try:
        settle(listens, "the registry does not listen")
        yield address
    finally:
        server.terminate()
        server.wait(10)


def podman_of(directory):
    """podman with a store of its own, and how it runs a container without privileges that are rare."""
    words = ["podman", "--root", str(directory / "podman-pull"), "--runroot", str(directory / "podman-pull-run"),
             "--tmpdir", str(directory / "podman-pull-tmp"), "--cgroup-manager", "cgroupfs", "--events-backend",
             "none", "--storage-driver", "vfs", "--runtime", "runc"]
    run = ["run", "--rm", "--tls-verify=false", "--network", "none", "--log-driver", "none", "--ulimit",
           "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    return words, run


def pulls(husk, directory):
    """An image of ten layers of 20 MB, from a registry of this machine, against skopeo and podman."""
    subprocess.run([sys.executable, TOP / "tests/vm/makeimage.py", directory / "wide", "--layers", "10", "--mb",
                    "20"], check=True)
    with registry(directory) as address:
        image = f"{address}/wide:1"
        timed(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{directory}/wide", f"docker://{image}"])
        ours, first, theirs = [], [], []
        for _ in range(3 if QUICK else 5):
            ours.append(husk("pull", "-q", image)[0])
            present = [husk("pull", "-q", image)[0] for _ in range(9)]
            husk("rmi", image)
            first.append(run_once([husk.program, "run", "--rm", image], env=husk.environment)[0])
            husk("rmi", image)
            theirs.append(timed(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}",
                                 f"dir:{directory}/copied"])[0])
            shutil.rmtree(directory / "copied")
        row("`pull` of 200 MB in 10 layers, ready to run", spread(ours))
        row("peer: `skopeo copy` of it to a directory, not unpacked", spread(theirs))
        row("`run` of it, first byte, with the pull", spread(first))
        podman_pulls(image, directory)
        row("`pull` of what is here, p50 of 9", spread(present), "≤ 30 ms")
        with Peaks(husk, "husk-transfer") as peaks:
            husk("pull", "-q", image)
        husk("rmi", image)
        row("peak memory of husk-transfer and its child", peaks.all(), "≤ 64 MiB")


def sizes(husk, directory):
    """What large layers, and many files, take of the workers. `husk` has made no template: the peak of a
    worker is that of its life."""
    with registry(directory) as address:
        big_layer(husk, address, directory)
    small_files(husk, directory)


def podman_pulls(image, directory):
    words, run = podman_of(directory)
    if not shutil.which("podman"):
        return
    pulled, first = [], []
    try:
        for _ in range(3):
            pulled.append(timed([*words, "pull", "-q", "--tls-verify=false", image])[0])
            timed([*words, "rmi", "-a", "-f"])
            first.append(run_once([*words, *run, image])[0])
            timed([*words, "rmi", "-a", "-f"])
        row("peer: `podman pull` of it, with vfs", spread(pulled))
        row("peer: `podman run` of it, first byte, with the pull", spread(first))
    except RuntimeError as problem:
        row("peer: `podman pull` of it", "does not run here")
        print(f"  podman: {problem}", file=sys.stderr)
        subprocess.run([*words, "rmi", "-a", "-f"], capture_output=True, check=False)


# ---- sizes -----------------------------------------------------------------------------------


def big_layer(husk, address, directory):
    here = directory / "big"
    here.mkdir()
    path = archive(here, fill_big)
    shutil.rmtree(here / "layout")
    with Peaks(husk, "husk-worker") as peaks:
        took, _ = husk("load", "-i", str(path))
    row(f"`load` of a layer of {BIG_MB} MiB", f"{took:.1f} s")
    row("peak memory of husk-worker while it does", peaks.most(), "≤ 64 MiB")
    path.unlink()
    husk("tag", "bench:1", f"{address}/big:1")
    husk("push", "-q", f"{address}/big:1")
    husk("rmi", "bench:1", f"{address}/big:1")
    with Peaks(husk, "husk-transfer") as peaks:
        took, _ = husk("pull", "-q", f"{address}/big:1")
    row(f"`pull` of a layer of {BIG_MB} MiB", f"{took:.1f} s")
    row("peak memory of husk-transfer and its child while it does", peaks.all(), "≤ 64 MiB")
    husk("rmi", f"{address}/big:1")


def small_files(husk, directory):
    here = directory / "small"
    here.mkdir()
    path = archive(here, fill_small)
    with Peaks(husk, "husk-worker") as peaks:
        took, _ = husk("load", "-i", str(path))
    row(f"`load` of a layer of {SMALL_FILES} files", f"{took:.1f} s")
    row("peak memory of husk-worker while it does", peaks.most(), "≤ 64 MiB")
    husk("rmi", "bench:1")
    shutil.rmtree(here)


# ---- storage drivers -------------------------------------------------------------------------


def layer_step(husk, image):
    """Milliseconds that the writable layer of a new container took."""
    _, _, said = husk.says("run", "--rm", "--timing", image, "true")
    return float(re.search(r"\+([0-9.]+) +layer ", said)[1])


def driver(build, directory, name, path, options):
    husk = Husk(build, directory / f"driver-{name}", "--templates", "off", f"--storage={name}", *options)
    try:
        took = []
        for _ in range(3):
            took.append(husk("load", "-i", str(path))[0])
            husk("rmi", "debian:1")
        husk("load", "-i", str(path))
        row(f"{name}: `load` of a Debian of {path.stat().st_size / 1e6:.0f} MB, ready to run", spread(took))
        layer_step(husk, "debian:1")
        steps = [layer_step(husk, "debian:1") for _ in range(RUNS)]
        row(f"{name}: the layer of another container of it, p50 of {RUNS}", f"{percentile(steps, 0.5):.1f} ms",
            "≤ 5 ms")
    finally:
        husk.close()


def drivers(build, directory):
    """Each driver prepares the root of a Debian, and makes layers on it."""
    here = directory / "debian"
    here.mkdir()
    try:
        timed([TOP / "tests/vm/debianroot", here / "root.tar"])
    except RuntimeError as problem:
        row("storage drivers with a Debian", "does not run here")
        print(f"  {problem}", file=sys.stderr)
        return
    subprocess.run([sys.executable, TOP / "tests/vm/makeimage.py", here / "layout", "--base", here / "root.tar",
                    "--plain"], check=True)
    path = here / "debian.tar"
    timed(["skopeo", "copy", "-q", f"oci:{here}/layout", f"docker-archive:{path}:debian:1"])
    for name, options in (("block", ()), ("overlay", ()),
                          ("devicemapper", ("--storage_opt=dm.loopdatasize=8G,dm.loopmetadatasize=64M",))):
        if name == "devicemapper" and not Path("/sys/class/misc/device-mapper").exists():
            row("devicemapper", "this kernel has none")
            continue
        try:
            driver(build, directory, name, path, options)
        except RuntimeError as problem:
            row(name, "does not run here")
            print(f"  {name}: {problem}", file=sys.stderr)


def measure_images(husk, build, directory):
    pulls(husk, directory)
    plain = Husk(build, directory / "sizes", "--templates", "off")
    try:
        sizes(plain, directory)
    finally:
        plain.close()
    drivers(build, directory)
