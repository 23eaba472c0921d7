/* The terminal in raw mode, and certainly out of it again: at the end, at a fatal signal, at a
 * crash and while husk is suspended.
 */
#ifndef HUSK_HUSK_TERM_H
#define HUSK_HUSK_TERM_H

#include <stdbool.h>

/* Standard input becomes raw if it is a terminal. Returns whether it is. */
bool term_raw(void);
/* Back to what it was; may be called at any time, any number of times, from a signal handler. */
void term_restore(void);
/* Rows and columns of the terminal on standard output or input, as texts that the caller owns;
 * false, and they stay, if neither is one. */
bool term_size(char **ret_rows, char **ret_columns);

#endif
