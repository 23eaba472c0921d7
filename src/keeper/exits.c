#include "keeper/exits.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"

/* Text that comes from a guest need not be UTF-8, which JSON must be. */
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    if (json)
        return json;
    CLEANUP_FREE char *plain = xstrdup(text);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return json_string(plain);
}

int exits_append(int fd, const struct exit_record *r, struct error **ret_error)
{
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:i, s:i, s:b, s:o, s:I, s:I}", "ctr", r->ctr, "exec", r->exec,
                  "run", (json_int_t)r->run, "code", (int)r->code, "signal", (int)r->signal, "oom",
                  (int)r->oom, "reason", text_json(r->reason), "started_ns",
                  (json_int_t)r->started_ns, "finished_ns", (json_int_t)r->finished_ns);
    CLEANUP_FREE char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return error_set(ret_error, ERROR_INTERNAL, 0, "the end of container '%s' is not text",
                         r->ctr);
    CLEANUP_FREE char *line = str_printf("%s\n", text);
    size_t size = strlen(line);
    off_t before = lseek(fd, 0, SEEK_END);
    ssize_t n = write(fd, line, size);
    if (n == (ssize_t)size)
        return 0;
    /* Half a line would spoil the next one, too. */
    if (n > 0 && before >= 0 && ftruncate(fd, before) < 0)
        return error_set(ret_error, ERROR_IO, errno, "truncate '%s'", EXITS_FILE);
    return error_set(ret_error, ERROR_IO, n < 0 ? errno : ENOSPC, "write '%s'", EXITS_FILE);
}

static void line_read(const char *line, size_t size,
                      void (*found)(const struct exit_record *record, void *arg), void *arg)
{
    json_t *root = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
    struct exit_record r = {0};
    json_int_t run, started, finished;
    int code, signal, oom;
    if (root &&
        json_unpack(root, "{s:s, s:s, s:I, s:i, s:i, s:b, s:s, s:I, s:I}", "ctr", &r.ctr, "exec",
                    &r.exec, "run", &run, "code", &code, "signal", &signal, "oom", &oom, "reason",
                    &r.reason, "started_ns", &started, "finished_ns", &finished) == 0) {
        r.run = (uint64_t)run;
        r.code = (uint32_t)code;
        r.signal = (uint32_t)signal;
        r.oom = oom != 0;
        r.started_ns = (uint64_t)started;
        r.finished_ns = (uint64_t)finished;
        found(&r, arg);
    }
    json_decref(root);
}

int exits_read(const char *path, void (*found)(const struct exit_record *record, void *arg),
               void *arg, struct error **ret_error)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return errno == ENOENT ? 0 : error_set(ret_error, ERROR_IO, errno, "open '%s'", path);
    CLEANUP_FREE char *line = xmalloc(EXITS_LINE_MAX);
    while (fgets(line, EXITS_LINE_MAX, file))
        line_read(line, strlen(line), found, arg);
    int failed = ferror(file) ? errno : 0;
    fclose(file);
    return failed ? error_set(ret_error, ERROR_IO, failed, "read '%s'", path) : 0;
}
