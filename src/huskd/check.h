/* `huskd --check`: whether this host has what the settings ask for. */
#ifndef HUSK_HUSKD_CHECK_H
#define HUSK_HUSKD_CHECK_H

#include <stdio.h>

#include "huskd/settings.h"

/* Prints a line for each finding. Returns the number of problems. */
unsigned check_host(const struct settings *settings, FILE *out);

#endif
