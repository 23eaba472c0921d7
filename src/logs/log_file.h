/* What a container wrote, kept in a file: one JSON object a line, as docker's json-file driver has
 * it, so that its readers read ours:
 *
 *     {"log":"hello\n","stream":"stdout","time":"2024-05-01T12:00:00.123456789Z"}
 *
 * A line of the container is one object; a longer one than LOG_PIECE_MAX is several, of which only
 * the last ends in a newline. Bytes that are not UTF-8 become U+FFFD. A file that has reached its
 * limit is renamed to PATH.1 (replacing that), and a new one is begun.
 *
 * Writing only fills a buffer; log_file_flush() writes it, and is to be called at the end of each
 * turn of the loop. The beginning of a line waits for its end, at most until log_file_close().
 */
#ifndef HUSK_LOGS_LOG_FILE_H
#define HUSK_LOGS_LOG_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    LOG_PIECE_MAX = 16 << 10,   /* bytes of the container in one object */
    LOG_BUFFER_MAX = 256 << 10, /* is written without waiting for the flush */
};

enum log_stream { LOG_STDOUT, LOG_STDERR, LOG_STREAM_COUNT };

struct log_file;

/* Appends to the file, or makes it (mode 0600). max_bytes 0: no limit. */
int log_file_open(const char *path, uint64_t max_bytes, struct log_file **ret,
                  struct error **ret_error);
void log_file_write(struct log_file *log, enum log_stream stream, const void *data, size_t size);
/* Fails if the file cannot be written: then the buffer is lost, and the next one is tried anew. */
int log_file_flush(struct log_file *log, struct error **ret_error);
/* Writes what is left. NULL is fine. */
int log_file_close(struct log_file *log, struct error **ret_error);

#endif
