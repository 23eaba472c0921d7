#include "hyper/qemu_args.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/str.h"

/* QEMU's cache of translated code under TCG. Left alone it takes up to 1 GiB. */
enum { TB_CACHE_MIB = 128 };

enum when {
    ALWAYS = 0,
    Q35 = 1,
    MICROVM = 2,
    KVM = 4,
    TCG = 8,
    ONE_CPU = 16,
    MANY_CPUS = 32,
    BOOT = 64,     /* a kernel is started: cold, or a template */
    RESUMED = 128, /* or it goes on where a template was frozen */
    COLD = 256,
    MEMORY_FILE = 512,
    CPUS_FIXED = 1024,
    CPUS_GROW = 2048,
    MEMORY_GROWS = 4096,
    MEMORY_FIXED = 8192,
    DISK = 16384, /* alone, or with one of the next two */
    FILLED = 32768,
    EMPTY = 65536,
    VIRTIO = 131072,
    SCSI = 262144,
    SHARE = 524288,
    RETURNS = 1048576, /* what the guest frees goes back to the host */
    ZYGOTE = 2097152,
    ALONE = 4194304, /* no zygote */
};

static const struct arg_row {
    unsigned when;
    const char *option;
    const char *value;
} rows[] = {
#define QEMU_ARG(when, option, value) {when, option, value},
#include "hyper/qemu_args.def"
#undef QEMU_ARG
};

/* What the {words} stand for. */
struct values {
    const char *vm, *append, *bus, *reboot, *tsc, *read_only, *share, *child;
    uint64_t cpus, cpus_max, memory_kib, memory_max_kib, more_kib, tb_mib;
    uint64_t monitor_fd, agent_fd, console_fd, kernel_fd, initrd_fd, memory_fd, share_fd;
    uint64_t disk, disk_fd, lun, slot_size;
};

static const struct word {
    const char *name;
    bool number;
    size_t offset;
} words[] = {
#define TEXT(name)                                                                                 \
    {                                                                                              \
#name, false, offsetof(struct values, name)                                                \
    }
#define NUMBER(name)                                                                               \
    {                                                                                              \
#name, true, offsetof(struct values, name)                                                 \
    }
    TEXT(vm),           TEXT(tsc),         TEXT(append),       TEXT(bus),
    TEXT(reboot),       TEXT(read_only),   TEXT(share),        TEXT(child),
    NUMBER(cpus),       NUMBER(cpus_max),  NUMBER(memory_kib), NUMBER(memory_max_kib),
    NUMBER(more_kib),   NUMBER(tb_mib),    NUMBER(monitor_fd), NUMBER(agent_fd),
    NUMBER(console_fd), NUMBER(kernel_fd), NUMBER(initrd_fd),  NUMBER(memory_fd),
    NUMBER(disk),       NUMBER(disk_fd),   NUMBER(slot_size),  NUMBER(lun),
    NUMBER(share_fd),
#undef TEXT
#undef NUMBER
};

static void put_word(struct buf *out, const char *name, size_t size, const struct values *v)
{
    for (const struct word *w = words; w < words + ARRAY_SIZE(words); w++) {
        const char *at = (const char *)v + w->offset;
        if (strlen(w->name) != size || memcmp(w->name, name, size) != 0)
            continue;
        if (w->number)
            buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
        else
            buf_append_str(out, *(const char *const *)at);
        return;
    }
    assert(!"a word of qemu_args.def is not in the table");
}

static char *value_expand(const char *template, const struct values *v)
{
    struct buf out = {0};
    for (const char *p = template; *p;) {
        size_t plain = strcspn(p, "{");
        buf_append(&out, p, plain);
        p += plain;
        if (!*p)
            break;
        size_t size = strcspn(++p, "}");
        put_word(&out, p, size, v);
        p += size + 1;
    }
    return buf_take_str(&out);
}

static void put_row(char ***args, const struct arg_row *row, const struct values *v)
{
    strv_push(args, row->option);
    if (row->value)
        strv_push_take(args, value_expand(row->value, v));
}

/* All DISK rows of one disk stand together. */
static void put_disks(char ***args, const struct hyper_spec *spec, struct values *v)
{
    for (unsigned i = 0; i < spec->disk_count; i++) {
        v->disk = i;
        v->disk_fd = QEMU_FD_DISK + i;
        v->read_only = spec->disks[i].read_only ? "on" : "off";
        v->child = spec->disks[i].fd >= 0 ? "f" : "e";
        v->lun = HYPER_HOT_DISKS_MAX + i;
        unsigned have = DISK | (spec->disks[i].fd >= 0 ? FILLED : EMPTY) |
                        (spec->disks[i].scsi ? SCSI : VIRTIO);
        for (const struct arg_row *row = rows; row < rows + ARRAY_SIZE(rows); row++)
            if (row->when & DISK && (row->when & have) == row->when)
                put_row(args, row, v);
    }
}

unsigned qemu_cpus_at_start(const struct hyper_spec *spec)
{
    return spec->origin != HYPER_COLD && spec->layout.cpus_max ? 1 : spec->cpus;
}

bool qemu_resumes(const struct hyper_spec *spec)
{
    return spec->origin == HYPER_CLONE || (spec->origin == HYPER_TEMPLATE && spec->state_fd >= 0);
}

/* Of what the VM is made of. A clone with one CPU is emulated by one thread, though others of its
 * template are not: that is QEMU's affair, and the guest does not see it. */
static unsigned conditions_of_origin(const struct hyper_spec *spec)
{
    bool cold = spec->origin == HYPER_COLD;
    const struct hyper_layout *l = &spec->layout;
    return (cold ? COLD : MEMORY_FILE) | (cold && spec->share_fd >= 0 ? SHARE : 0) |
           (qemu_resumes(spec) ? RESUMED : BOOT) | (!cold && l->cpus_max ? CPUS_GROW : CPUS_FIXED) |
           (!cold && l->memory_max_bytes > l->base_bytes ? MEMORY_GROWS : MEMORY_FIXED) |
           (spec->memory_return ? RETURNS : 0) | (spec->zygote ? ZYGOTE : ALONE);
}

static int growth_check(const struct hyper_spec *spec, unsigned have, struct error **ret_error)
{
    if (have & MICROVM && have & (CPUS_GROW | MEMORY_GROWS))
        return error_set(ret_error, ERROR_UNSUPPORTED, 0, "a microvm cannot grow");
    return 0;
}

static int conditions(const struct hyper_spec *spec, unsigned *ret, struct error **ret_error)
{
    unsigned machine = str_eq(spec->machine, "q35")       ? Q35
                       : str_eq(spec->machine, "microvm") ? MICROVM
                                                          : 0;
    unsigned accel = str_eq(spec->accel, "kvm") ? KVM : str_eq(spec->accel, "tcg") ? TCG : 0;
    if (!machine)
        return error_set(ret_error, ERROR_INVALID, 0, "machine '%s' is not known", spec->machine);
    if (!accel)
        return error_set(ret_error, ERROR_INVALID, 0, "accelerator '%s' is not known", spec->accel);
    /* QEMU's options are separated by commas, its kernel's words by spaces. */
    if (strpbrk(spec->vm, ", "))
        return error_set(ret_error, ERROR_INVALID, 0, "'%s' is not an id of a VM", spec->vm);
    *ret = machine | accel | (spec->cpus == 1 ? ONE_CPU : MANY_CPUS) | conditions_of_origin(spec);
    return growth_check(spec, *ret, ret_error);
}

int qemu_args_build(const struct hyper_spec *spec, unsigned tsc_khz, char ***ret,
                    struct error **ret_error)
{
    CLEANUP_FREE char *tsc = tsc_khz ? str_printf("tsc_early_khz=%u ", tsc_khz) : xstrdup("");
    uint64_t memory = spec->origin == HYPER_COLD ? spec->memory_bytes : spec->layout.base_bytes;
    unsigned have = 0;
    if (conditions(spec, &have, ret_error) < 0)
        return -1;
    struct values v = {
        .vm = spec->vm,
        .append = spec->append,
        .tsc = tsc,
        .bus = have & Q35 ? "pci" : "device",
        /* A microvm without ACPI's power button ends by a reset. */
        .reboot = have & MICROVM ? "reboot=t " : "",
        .cpus = qemu_cpus_at_start(spec),
        .cpus_max = spec->layout.cpus_max,
        .memory_kib = memory >> 10,
        .memory_max_kib = spec->layout.memory_max_bytes >> 10,
        .more_kib = have & MEMORY_GROWS ? (spec->layout.memory_max_bytes - memory) >> 10 : 0,
        .share = spec->origin == HYPER_CLONE ? "off" : "on",
        .tb_mib = TB_CACHE_MIB,
        .monitor_fd = QEMU_FD_MONITOR,
        .agent_fd = QEMU_FD_AGENT,
        .console_fd = QEMU_FD_CONSOLE,
        .kernel_fd = QEMU_FD_KERNEL,
        .initrd_fd = QEMU_FD_INITRD,
        .memory_fd = QEMU_FD_MEMORY,
        .share_fd = QEMU_FD_SHARE,
        .slot_size = QEMU_SLOT_SIZE,
    };
    char **args = NULL;
    strv_push(&args, spec->program);
    for (const struct arg_row *row = rows; row < rows + ARRAY_SIZE(rows); row++)
        if (!(row->when & DISK) && (row->when & have) == row->when)
            put_row(&args, row, &v);
    put_disks(&args, spec, &v);
    *ret = args;
    return 0;
}
