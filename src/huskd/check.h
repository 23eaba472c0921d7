/* `huskd --check`: whether this host has what the settings ask for. */
#ifndef HUSK_HUSKD_CHECK_H
#define HUSK_HUSKD_CHECK_H

#include <stdio.h>

#include "base/error.h"
#include "huskd/settings.h"

/* Whether the storage driver has its options and can work here: `worker`, a program, knows. */
int check_storage(const struct settings *settings, const char *worker, struct error **ret_error);

/* Prints a line for each finding. Returns the number of problems. */
unsigned check_host(const struct settings *settings, FILE *out);

#endif
