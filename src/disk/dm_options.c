#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "disk/dm.h"

enum kind { SIZE, PERCENT, YES_NO, POOL, EXT4 };

/* Docker's names. `step`: sizes are multiples of it. */
static const struct option {
    const char *name;
    enum kind kind;
    size_t at; /* in struct dm_options */
    const char *otherwise;
    uint64_t min, max, step;
} options_known[] = {
    {"dm.thinpooldev", POOL, offsetof(struct dm_options, thinpooldev), "", 0, 0, 0},
    {"dm.basesize", SIZE, offsetof(struct dm_options, basesize), "10GiB", 64 << 20, 16ULL << 40,
     1 << 20},
    {"dm.loopdatasize", SIZE, offsetof(struct dm_options, loopdatasize), "100GiB", 64 << 20,
     16ULL << 40, 1 << 20},
    {"dm.loopmetadatasize", SIZE, offsetof(struct dm_options, loopmetadatasize), "2GiB", 4 << 20,
     15ULL << 30, 4096},
    {"dm.blocksize", SIZE, offsetof(struct dm_options, blocksize), "64KiB", 64 << 10, 1 << 30,
     64 << 10},
    {"dm.min_free_space", PERCENT, offsetof(struct dm_options, min_free_space), "10%", 0, 99, 1},
    {"dm.blkdiscard", YES_NO, offsetof(struct dm_options, blkdiscard), "true", 0, 0, 0},
    {"dm.fs", EXT4, 0, "ext4", 0, 0, 0},
};

static int refuse(const char *option, const char *why, struct error **ret_error)
{
    return error_set(ret_error, ERROR_INVALID, 0, "storage_opt '%s': %s", option, why);
}

static int size_read(const struct option *o, const char *text, const char *value, uint64_t *ret,
                     struct error **ret_error)
{
    if (!str_to_size(value, 1, ret))
        return refuse(text, "it is not a size like '20G'", ret_error);
    if (*ret < o->min || *ret > o->max || *ret % o->step != 0)
        return error_set(ret_error, ERROR_INVALID, 0,
                         "storage_opt '%s': it must lie between %llu and %llu bytes, in steps of "
                         "%llu",
                         text, (unsigned long long)o->min, (unsigned long long)o->max,
                         (unsigned long long)o->step);
    return 0;
}

static int percent_read(const struct option *o, const char *text, const char *value, uint64_t *ret,
                        struct error **ret_error)
{
    size_t length = strlen(value);
    CLEANUP_FREE char *digits = xstrndup(value, length > 0 ? length - 1 : 0);

    if (!str_ends(value, "%") || !str_to_u64(digits, o->min, o->max, ret))
        return refuse(text, "it is not a percentage from 0% to 99%", ret_error);
    return 0;
}

static int pool_read(const char *text, const char *value, char *ret, struct error **ret_error)
{
    static const char prefix[] = "/dev/mapper/";

    if (str_starts(value, prefix))
        value += strlen(prefix);
    if (strchr(value, '/') || strlen(value) >= DM_NAME_MAX)
        return refuse(text, "it is not the name of a thin pool or '/dev/mapper/NAME'", ret_error);
    memcpy(ret, value, strlen(value) + 1);
    return 0;
}

static int value_read(const struct option *o, const char *text, const char *value,
                      struct dm_options *ret, struct error **ret_error)
{
    char *at = (char *)ret + o->at;

    switch (o->kind) {
    case SIZE:
        return size_read(o, text, value, (uint64_t *)(void *)at, ret_error);
    case PERCENT:
        return percent_read(o, text, value, (uint64_t *)(void *)at, ret_error);
    case POOL:
        return pool_read(text, value, at, ret_error);
    case YES_NO:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return refuse(text, "it is neither 'true' nor 'false'", ret_error);
        *(bool *)at = strcmp(value, "true") == 0;
        return 0;
    case EXT4:
        if (strcmp(value, "ext4") != 0)
            return refuse(text, "images have 'ext4' and nothing else", ret_error);
        return 0;
    }
    return -1;
}

static int unknown(const char *text, struct error **ret_error)
{
    CLEANUP_STRV char **names = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(options_known); i++)
        strv_push(&names, options_known[i].name);
    CLEANUP_FREE char *list = strv_join((const char *const *)names, ", ");
    return error_set(ret_error, ERROR_INVALID, 0,
                     "storage_opt '%s': the storage driver 'devicemapper' has no such option, only "
                     "%s",
                     text, list);
}

static int option_read(const char *text, struct dm_options *ret, struct error **ret_error)
{
    size_t length = strcspn(text, "=");

    for (size_t i = 0; i < ARRAY_SIZE(options_known); i++) {
        const struct option *o = &options_known[i];
        if (strlen(o->name) == length && memcmp(o->name, text, length) == 0 && text[length] == '=')
            return value_read(o, text, text + length + 1, ret, ret_error);
    }
    return unknown(text, ret_error);
}

int dm_options_read(const char *const *options, struct dm_options *ret, struct error **ret_error)
{
    *ret = (struct dm_options){0};
    for (size_t i = 0; i < ARRAY_SIZE(options_known); i++)
        if (value_read(&options_known[i], "", options_known[i].otherwise, ret, ret_error) < 0)
            return -1;
    STRV_FOREACH(option, options)
        if (option_read(*option, ret, ret_error) < 0)
            return -1;
    return 0;
}
