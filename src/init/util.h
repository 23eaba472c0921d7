/* Small things of husk-init: its log, and files of a line. */
#ifndef HUSK_INIT_UTIL_H
#define HUSK_INIT_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* To the kernel's log, and to the keeper once it listens. `level` is a syslog priority. */
void say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Where say() also goes; NULL: nowhere else. */
void say_to(void (*sink)(int level, const char *line));

/* Writes text into an existing file: -1 and errno if that fails. */
int file_write(const char *path, const char *text);
int file_write_at(int dir, const char *path, const char *text);
/* The content as an owned string, at most `max` bytes of it; NULL and errno if it fails. */
char *file_read(const char *path, size_t max);
char *file_read_at(int dir, const char *path, size_t max);
/* A number in a file, 0 if there is none. */
uint64_t file_number(const char *path);

/* "MemTotal" or "MemAvailable" of the guest. */
uint64_t memory_bytes(const char *what);

/* Makes a directory and those above it; one that is there is fine. */
int mkdir_all(const char *path, mode_t mode);

#define CLEANUP_FD __attribute__((cleanup(fd_closep)))
void fd_closep(int *fd);
int fd_take(int *fd);

#endif
