#!/usr/bin/env python3
"""makeimage.py DIR [OPTIONS]: an OCI layout with an image that can run.

The lowest layer has the host's static busybox; each of the --layers N others a file /layer/NUMBER,
one more line in /history (in a new copy of it), and --mb M megabytes that cannot be packed. With
--base TAR the lowest layer is that root instead. --plain leaves the layers uncompressed. With --index
MACHINE,… the layout's image is an index of one image for each, all of the same layers.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile

OCI = "application/vnd.oci.image."


def member(tar, name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, link
    info.mtime = 1700000000
    tar.addfile(info, io.BytesIO(data))


def layer(number, mb):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if number == 0:
            busybox = open(shutil.which("busybox"), "rb").read()
            member(tar, "bin", mode=0o755, kind=tarfile.DIRTYPE)
            member(tar, "bin/busybox", busybox, 0o755)
            for name in ("sh", "cat", "echo", "ls", "sleep", "sha256sum", "touch"):
                member(tar, f"bin/{name}", mode=0o777, kind=tarfile.SYMTYPE, link="busybox")
        member(tar, "layer", mode=0o755, kind=tarfile.DIRTYPE)
        member(tar, f"layer/{number}", b"%d\n" % number)
        member(tar, "history", b"".join(b"%d\n" % i for i in range(number + 1)))
        if mb:
            member(tar, f"layer/{number}.bytes", random.Random(number).randbytes(mb * 1000000))
    return out.getvalue()


class Layout:
    def __init__(self, directory):
        self.directory = directory
        os.makedirs(f"{directory}/blobs/sha256")

    def blob(self, data, kind, **more):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.directory}/blobs/sha256/{digest}", "wb") as f:
            f.write(data)
        return {"mediaType": OCI + kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def json(self, value, kind, **more):
        return self.blob(json.dumps(value).encode(), kind, **more)

    def manifest(self, config, layers, **more):
        return self.json({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                          "config": config, "layers": layers}, "manifest.v1+json", **more)

    def finish(self, descriptor):
        for name, value in (("index.json", {"schemaVersion": 2, "manifests": [descriptor]}),
                            ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
            with open(f"{self.directory}/{name}", "w") as f:
                json.dump(value, f)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--mb", type=int, default=0)
    parser.add_argument("--base", type=argparse.FileType("rb"))
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--index", default="")
    wanted = parser.parse_args()
    layout = Layout(wanted.directory)
    diffs, layers = [], []
    for number in range(wanted.layers):
        tar = wanted.base.read() if wanted.base and number == 0 else layer(number, wanted.mb)
        diffs.append("sha256:" + hashlib.sha256(tar).hexdigest())
        layers.append(layout.blob(tar, "layer.v1.tar") if wanted.plain else
                      layout.blob(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip"))

    def image(machine, **more):
        config = {"architecture": machine, "os": "linux", "created": "2023-11-14T22:13:20Z",
                  "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": diffs},
                  "history": [{"created": "2023-11-14T22:13:20Z", "created_by": f"layer {i}"}
                              for i in range(wanted.layers)]}
        return layout.manifest(layout.json(config, "config.v1+json"), layers, **more)

    if not wanted.index:
        layout.finish(image("amd64"))
        return
    system = {"attested": "unknown"}
    members = [image(machine, platform={"os": system.get(machine, "linux"),
                                        "architecture": system.get(machine, machine)})
               for machine in wanted.index.split(",")]
    layout.finish(layout.json({"schemaVersion": 2, "mediaType": OCI + "index.v1+json",
                               "manifests": members}, "index.v1+json"))


main()
