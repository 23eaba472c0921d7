#ifndef HUSK_INIT_PROCESS_H
#define HUSK_INIT_PROCESS_H
#include <stdbool.h>
static inline void process_reap(void)
{
}
static inline bool process_pump(void)
{
    return false;
}
#endif
