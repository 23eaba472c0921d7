"""A guest with Debian's kernel, which has a device-mapper: most hosts that build husk have none to
spare. QEMU boots that kernel with what a test needs, and what the test says there comes over the
serial console."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

BUILD = os.path.abspath(os.environ["HUSK_BUILD"])
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODULES = ["virtio_pci", "virtio_blk", "loop", "dm_thin_pool", "kvm_amd"]
LAST = "# the guest's test: exit status "

# The disk is /work. What runs there prints TAP.
INIT = """#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "# guest: $(uname -r)"
for m in $(cat /modules/order); do insmod /modules/$m.ko || echo "# cannot load $m"; done
mount -t ext4 /dev/vda /work || echo "# no disk"
COMMAND
echo "LAST$?"
dmesg | grep -iE 'bug:|oops:|device-mapper: .*(error|fail)' | sed 's/^/# kernel: /'
poweroff -f
"""


def pack():
    """guest/pack.py, which knows modules and cpio archives."""
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("pack", f"{SOURCE}/guest/pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(name):
    """Where the host has it."""
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def with_libraries(files):
    """The files, {path: source}, and what the loaders of the programs among them open."""
    whole = dict(files)
    for source in files.values():
        listed = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
        whole.update((path, path) for path in re.findall(r"(/\S+) \(0x", listed))
    return whole


def daemon_files(programs):
    """What huskd, its VMs and these programs of the host need."""
    names = ["busybox", "qemu-system-x86_64", "mke2fs", "resize2fs", "e2fsck", "dmsetup", *programs]
    ours = {f"/husk/{name}": f"{BUILD}/{name}"
            for name in ("husk", "huskd", "husk-keeper", "husk-worker", "husk-transfer", "husk-qemu.so")}
    data = {f"/husk/guest/{name}": f"{BUILD}/guest/{name}"
            for name in ("vmlinux", "initramfs.cpio", "busybox.tar")}
    data |= {path: path for path in ("/etc/mke2fs.conf", "/usr/lib/locale/C.utf8/LC_CTYPE",
                                     "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/kvmvapic.bin",
                                     "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/pvh.bin")}
    return with_libraries({**ours, **{f"/usr/bin/{name}": program(name) for name in names}}) | data


def initramfs(tmp, files, command, modules):
    tools = pack()
    archive = tools.Cpio()
    made = set()

    def put(path, text):
        parts = path.strip("/").split("/")
        for i in range(1, len(parts)):
            folder = "/".join(parts[:i])
            if folder not in made:
                made.add(folder)
                archive.add(folder, tools.DIR | 0o755)
        archive.add(path.strip("/"), tools.FILE | 0o755, text)

    table = os.path.join(tmp, "modules")
    with open(table, "w") as f:
        f.writelines(f"early {m}\n" for m in [*MODULES, *modules])
    order = tools.module_order(table, f"{BUILD}/guest/kernel/lib/modules")
    for name in ["dev", "proc", "sys", "tmp", "work"]:
        archive.add(name, tools.DIR | 0o755)
    archive.add("dev/console", tools.CHAR | 0o600, rdev=(5, 1))
    for path, source in with_libraries({"/bin/busybox": "/bin/busybox", **files}).items():
        put(path, tools.read(source))
    for _, name, text in order:
        put(f"/modules/{name}.ko", text)
    put("/modules/order", "\n".join(name for _, name, _ in order).encode())
    put("/init", INIT.replace("COMMAND", command).replace("LAST", LAST).encode())
    path = os.path.join(tmp, "initramfs")
    tools.write(path, archive.bytes())
    return path


def disk(tmp, size, files):
    """A sparse ext4 file with these files."""
    tree = os.path.join(tmp, "tree")
    os.mkdir(tree)
    for path, source in files.items():
        os.makedirs(os.path.dirname(tree + path), exist_ok=True)
        shutil.copy(source, tree + path)
    path = os.path.join(tmp, "disk")
    with open(path, "wb") as f:
        f.truncate(size)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", tree, path],
                   check=True)
    shutil.rmtree(tree)
    return path


def boot(archive, disk_path, memory_mb, deadline_s):
    """The lines that the guest says, until it ends or its time is over."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel",
               "tcg", "-cpu", "max", "-smp", "2", "-m", str(memory_mb), "-no-reboot", "-display", "none",
               "-kernel", f"{BUILD}/guest/vmlinux", "-initrd", archive,
               "-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off rdinit=/init", "-serial", "stdio",
               "-drive", f"file={disk_path},format=raw,if=none,id=d,cache=unsafe,discard=unmap",
               "-device", "virtio-blk-pci,drive=d"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
    late = threading.Timer(deadline_s, child.kill)
    late.start()
    for line in child.stdout:
        yield line.decode("utf8", "replace").strip("\r\n")
    child.wait()
    late.cancel()


def run(command, files=None, disk_files=None, *, modules=(), disk_bytes, memory_mb, deadline_s):
    """Boots a guest that has `files` in its root and `disk_files` in /work, both {path: source}, and
    these modules besides the usual ones, runs the command there, and ends with its verdict."""
    results, plan, good = 0, "", False
    tmp = tempfile.mkdtemp(prefix="husk-dm-test.")
    try:
        for line in boot(initramfs(tmp, files or {}, command, modules), disk(tmp, disk_bytes, disk_files or {}),
                         memory_mb, deadline_s):
            if re.match(r"(not )?ok \d+ ", line):
                results += 1
            elif re.fullmatch(r"1\.\.\d+", line):
                plan = line
                continue
            elif not line.startswith("#"):
                line = f"# {line}"
            good = good or line == f"{LAST}0"
            print(line, flush=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    whole = plan == f"1..{results}"
    print(f"{'ok' if whole else 'not ok'} {results + 1} - the guest ran all of it")
    print(f"1..{results + 1}")
    sys.exit(0 if good and whole else 1)


def run_daemon(command, programs, disk_files, *, memory_mb, deadline_s):
    """The same, with the command run where huskd can be, and /husk is its build directory."""
    root = {"/dmroot.sh": os.path.join(os.path.dirname(os.path.abspath(__file__)), "dmroot.sh")}
    run(f"sh /work/dmroot.sh {command}", {}, {**daemon_files(programs), **root, **disk_files},
        disk_bytes=4 << 30, memory_mb=memory_mb, deadline_s=deadline_s)
