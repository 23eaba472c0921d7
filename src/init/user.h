/* Who a process runs as: "name", "number", "user:group", resolved with the container's own
 * /etc/passwd and /etc/group, whose text is not to be trusted.
 */
#ifndef HUSK_INIT_USER_H
#define HUSK_INIT_USER_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

enum { USER_GROUPS_MAX = 256 };

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* additional */
    size_t group_count;
    char *home; /* owned; "/" if not known */
};

/* passwd and group are the texts of the files (NULL: there is none); spec "" is root. Without a
 * group in spec, the user's groups of the group file are taken too. `extra` are more groups, names
 * or numbers. ERROR_INVALID for a name that does not exist. */
int user_resolve(struct user *ret, const char *passwd, const char *group, const char *spec,
                 const char *const *extra, struct error **ret_error);
void user_done(struct user *user);

#endif
