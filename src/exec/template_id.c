/* What a template depends on: when any of it changes it is another template. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "exec/accel.h"
#include "exec/template.h"

enum {
    LAYOUT = 2, /* of what huskd does to make a template */
    CPUINFO_LINE = 8192,
};

/* Of the 64-bit variant of Fowler, Noll and Vo, 1a. */
static const uint64_t FNV_BASIS = 0xcbf29ce484222325, FNV_PRIME = 0x100000001b3;

static uint64_t fnv(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * FNV_PRIME;
    return hash;
}

static void put(char ***inputs, const char *name, const char *value)
{
    strv_push_take(inputs, str_printf("%s=%s", name, str_or(value, "")));
}

static void put_number(char ***inputs, const char *name, uint64_t value)
{
    strv_push_take(inputs, str_printf("%s=%" PRIu64, name, value));
}

/* A file that was changed has another time, and one that was exchanged another inode. */
static void put_file(char ***inputs, const char *name, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        strv_push_take(inputs, str_printf("%s=%s missing", name, path));
        return;
    }
    strv_push_take(inputs, str_printf("%s=%s %lld %lld.%09ld %llu", name, path,
                                      (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                                      st.st_mtim.tv_nsec, (unsigned long long)st.st_ino));
}

/* A template may be carried to another host with its directory. */
static void put_cpu(char ***inputs)
{
    char line[CPUINFO_LINE];
    uint64_t flags = FNV_BASIS;
    CLEANUP_FREE char *model = NULL;
    FILE *f = fopen(ACCEL_CPUINFO, "re");
    while (f && fgets(line, sizeof(line), f) && line[0] != '\n') { /* the first CPU */
        line[strcspn(line, "\n")] = '\0';
        const char *value = strchr(line, ':');
        if (str_starts(line, "model name") && value)
            str_set(&model, value + 1 + strspn(value + 1, " "));
        if (str_starts(line, "flags"))
            flags = fnv(flags, line);
    }
    if (f)
        fclose(f);
    if (model)
        str_make_plain(model);
    strv_push_take(inputs, str_printf("cpu=%s %016" PRIx64, str_or(model, ""), flags));
}

char **template_inputs(const struct exec_config *config, const char *accel, uint64_t base_bytes)
{
    struct utsname host = {0};
    char **inputs = NULL;
    uname(&host);
    put_number(&inputs, "layout", LAYOUT);
    put(&inputs, "husk", HUSK_VERSION);
    put_file(&inputs, "qemu", config->qemu);
    put_file(&inputs, "kernel", config->kernel);
    put_file(&inputs, "initrd", config->initrd);
    /* The words of QEMU's command line are in the keeper. */
    put_file(&inputs, "keeper", config->keeper);
    put_file(&inputs, "module", config->module);
    put_file(&inputs, "rehearsed", config->busybox);
    put(&inputs, "machine", config->machine);
    put(&inputs, "accel", accel);
    put(&inputs, "append", config->kernel_append);
    put(&inputs, "memory_return", config->memory_return ? "on" : "off");
    put_cpu(&inputs);
    put(&inputs, "host", str_eq(accel, "kvm") ? host.release : "any");
    put_number(&inputs, "cpus_max", template_cpus_max(config, accel));
    put_number(&inputs, "memory_max", config->memory_max_bytes);
    if (base_bytes)
        put_number(&inputs, "memory", base_bytes);
    return inputs;
}

char *rehearsal_image(const struct exec_config *config)
{
    CLEANUP_STRV char **inputs = NULL;
    put_file(&inputs, "archive", config->busybox);
    return str_printf(REHEARSAL_PREFIX "%016" PRIx64 ".erofs", fnv(FNV_BASIS, inputs[0]));
}

char **template_image_inputs(const struct exec_config *config, const char *const *generic,
                             const struct image *image)
{
    CLEANUP_FREE char *root =
        str_printf("%s/%s", config->root, image->files ? image->files[0] : "");
    char **inputs = strv_copy(generic);
    put(&inputs, "image", image->id);
    put_file(&inputs, "root", root);
    put_number(&inputs, "layer", config->layer_size);
    return inputs;
}

void template_image_id_make(const char *const *inputs, const struct image *image,
                            char ret[TEMPLATE_ID_MAX + 1])
{
    uint64_t hash = FNV_BASIS;
    STRV_FOREACH(input, inputs)
        hash = fnv(fnv(hash, *input), "\n");
    snprintf(ret, TEMPLATE_ID_MAX + 1, TEMPLATE_IMAGE_PREFIX "%.12s-%08" PRIx32,
             image->id + strlen("sha256:"), (uint32_t)(hash ^ hash >> 32));
}

void template_id_make(const char *const *inputs, uint64_t base_bytes, char ret[TEMPLATE_ID_MAX + 1])
{
    uint64_t hash = FNV_BASIS;
    STRV_FOREACH(input, inputs)
        hash = fnv(fnv(hash, *input), "\n");
    snprintf(ret, TEMPLATE_ID_MAX + 1, "%" PRIu64 "-%016" PRIx64, base_bytes >> 20, hash);
}

bool template_id_read(const char *id, uint64_t *ret_base_bytes)
{
    CLEANUP_FREE char *memory = xstrndup(id, strcspn(id, "-"));
    const char *hash = id + strlen(memory);
    uint64_t mib;
    if (*hash != '-' || strlen(hash + 1) != 16 || strspn(hash + 1, "0123456789abcdef") != 16 ||
        !str_to_u64(memory, 1, UINT32_MAX, &mib))
        return false;
    *ret_base_bytes = mib << 20;
    return true;
}
