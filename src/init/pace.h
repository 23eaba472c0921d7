/* Who runs first when husk-init has woken a process up. */
#ifndef HUSK_INIT_PACE_H
#define HUSK_INIT_PACE_H

/* A large piece of input is about to be handed to a process. While there are such, husk-init does
 * not take the CPU from the process that reads them, which it would do with each piece that comes:
 * with an emulated CPU each change of process empties the TLB. */
void pace_bulk(void);

#endif
