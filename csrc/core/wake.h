/* wake.h: end a loop's wait, from any thread or a signal handler. */
#ifndef FDMUX_WAKE_H
#define FDMUX_WAKE_H

struct fdmux_loop;

int fdmux__wake_open(struct fdmux_loop *loop);
/* Waits for threads that are ringing now, since the descriptor's number may be reused
 * at once. */
void fdmux__wake_close(struct fdmux_loop *loop);
/* Make the wake descriptor readable. Returns 0 or -errno. */
int fdmux__wake_ring(struct fdmux_loop *loop);
/* Make it unreadable again. Returns 0 or -errno. */
int fdmux__wake_silence(struct fdmux_loop *loop);

#endif
