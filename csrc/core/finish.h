/* finish.h: the end of a loop, when no dispatch runs. */
#ifndef FDMUX_FINISH_H
#define FDMUX_FINISH_H

struct fdmux_loop;

/* End every watcher of a closed loop and close its kernel objects; free the loop if it
 * is destroyed. With the lock held; releases it. */
void fdmux__loop_finish(struct fdmux_loop *loop);
/* Free the memory of a finished loop. */
void fdmux__loop_free(struct fdmux_loop *loop);

#endif
