/* loop.h: the life of a loop. */
#ifndef FDMUX_LOOP_H
#define FDMUX_LOOP_H

struct fdmux_loop;

/* Close without freeing, for a binding whose users may still refer to the loop. */
int fdmux__loop_close(struct fdmux_loop *loop);

#endif
