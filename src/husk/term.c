#include "husk/term.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/str.h"

static struct termios before; /* the terminal as it was found */
static volatile sig_atomic_t is_raw;

void term_restore(void)
{
    if (!is_raw)
        return;
    is_raw = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

/* A bug must not leave the user's shell without echo. */
static void on_crash(int signal)
{
    term_restore();
    raise(signal); /* SA_RESETHAND: now it kills */
}

static void crash_handlers(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
        sigaction(crashes[i], &action, NULL);
}

bool term_raw(void)
{
    static bool prepared;
    struct termios raw;
    if (is_raw)
        return true;
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return false;
    if (!prepared) {
        atexit(term_restore);
        crash_handlers();
        prepared = true;
    }
    raw = before;
    cfmakeraw(&raw);
    is_raw = 1;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    return true;
}

bool term_size(char **ret_rows, char **ret_columns)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
        return false;
    if (!size.ws_row || !size.ws_col)
        return false;
    *ret_rows = str_printf("%u", size.ws_row);
    *ret_columns = str_printf("%u", size.ws_col);
    return true;
}
