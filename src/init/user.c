#include "init/user.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* passwd(5): name:password:uid:gid:gecos:home:shell     group(5): name:password:gid:members */
enum { FIELDS_MAX = 7, PASSWD_FIELDS = 6, GROUP_FIELDS = 3, LINE_SIZE = 8192 };
enum { NAME = 0, ID = 2, GID = 3, MEMBERS = 3, HOME = 5 };

struct entry {
    char line[LINE_SIZE];
    const char *fields[FIELDS_MAX];
    size_t count;
};

/* Takes the next line apart; false at the end. A line too long for us is cut. */
static bool entry_next(const char **text, struct entry *e)
{
    const char *line = *text;
    if (!line || !*line)
        return false;
    size_t size = strcspn(line, "\n");
    *text = line + size + (line[size] == '\n');
    if (size >= LINE_SIZE)
        size = LINE_SIZE - 1;
    memcpy(e->line, line, size);
    e->line[size] = 0;

    e->count = 0;
    for (char *p = e->line; p && e->count < FIELDS_MAX;) {
        e->fields[e->count++] = p;
        p = strchr(p, ':');
        if (p)
            *p++ = 0;
    }
    return true;
}

/* (id_t)-1 means "do not change" to the kernel, so it is nobody's. */
static bool id_parse(const char *text, uint32_t *ret)
{
    uint64_t n;
    if (!str_to_u64(text, 0, UINT32_MAX - 1, &n))
        return false;
    *ret = (uint32_t)n;
    return true;
}

/* Finds an entry by its name or, if the text is a number, by that: a name of digits comes first. */
static bool entry_find(const char *text, const char *wanted, size_t fields, struct entry *e)
{
    uint32_t id, own;
    for (const char *at = text; entry_next(&at, e);)
        if (e->count >= fields && str_eq(e->fields[NAME], wanted))
            return true;
    if (!id_parse(wanted, &id))
        return false;
    for (const char *at = text; entry_next(&at, e);)
        if (e->count >= fields && id_parse(e->fields[ID], &own) && own == id)
            return true;
    return false;
}

static int group_resolve(gid_t *ret, const char *group, const char *wanted,
                         struct error **ret_error)
{
    struct entry e;
    if (entry_find(group, wanted, GROUP_FIELDS, &e) && id_parse(e.fields[ID], ret))
        return 0;
    if (id_parse(wanted, ret))
        return 0;
    return error_set(ret_error, ERROR_INVALID, 0, "group '%s' is not in /etc/group of the image",
                     wanted);
}

static int group_add(struct user *user, gid_t gid, struct error **ret_error)
{
    for (size_t i = 0; i < user->group_count; i++)
        if (user->groups[i] == gid)
            return 0;
    if (user->group_count == USER_GROUPS_MAX)
        return error_set(ret_error, ERROR_LIMIT, 0, "a user can have at most %d groups",
                         USER_GROUPS_MAX);
    user->groups[user->group_count++] = gid;
    return 0;
}

static bool member_of(const struct entry *e, const char *name)
{
    if (e->count <= MEMBERS)
        return false;
    CLEANUP_STRV char **members = str_split(e->fields[MEMBERS], ',');
    return strv_contains((const char *const *)members, name);
}

/* The groups that list the user as a member. */
static int groups_of(struct user *user, const char *group, const char *name,
                     struct error **ret_error)
{
    struct entry e;
    gid_t gid;
    while (entry_next(&group, &e))
        if (member_of(&e, name) && id_parse(e.fields[ID], &gid) &&
            group_add(user, gid, ret_error) < 0)
            return -1;
    return 0;
}

int user_resolve(struct user *ret, const char *passwd, const char *group, const char *spec,
                 const char *const *extra, struct error **ret_error)
{
    const char *colon = strchr(spec, ':');
    CLEANUP_FREE char *user_part = xstrndup(spec, colon ? (size_t)(colon - spec) : strlen(spec));
    const char *wanted = str_or(user_part, "0");
    const char *group_part = colon && colon[1] ? colon + 1 : NULL;
    struct entry e;
    gid_t gid;

    *ret = (struct user){0};
    bool known = entry_find(passwd, wanted, PASSWD_FIELDS, &e) &&
                 id_parse(e.fields[ID], &ret->uid) && id_parse(e.fields[GID], &ret->gid);
    if (!known && !id_parse(wanted, &ret->uid))
        return error_set(ret_error, ERROR_INVALID, 0,
                         "user '%s' is not in /etc/passwd of the image", wanted);
    ret->home = xstrdup(known ? str_or(e.fields[HOME], "/") : "/");
    if (group_part && group_resolve(&ret->gid, group, group_part, ret_error) < 0)
        return -1;
    /* The first group too: else a file that it may not read could be read without it. */
    if (group_add(ret, ret->gid, ret_error) < 0)
        return -1;
    if (known && !group_part && groups_of(ret, group, e.fields[NAME], ret_error) < 0)
        return -1;
    STRV_FOREACH(name, extra)
        if (group_resolve(&gid, group, *name, ret_error) < 0 || group_add(ret, gid, ret_error) < 0)
            return -1;
    return 0;
}

void user_done(struct user *user)
{
    free(user->home);
    user->home = NULL;
}
