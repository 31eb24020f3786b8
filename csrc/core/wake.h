/* wake.h: end a loop's wait, from any thread or a signal handler. */
#ifndef FDMUX_WAKE_H
#define FDMUX_WAKE_H

struct fdmux_loop;

/* Open the loop's bell, unless it is open or the backend needs none. */
int fdmux__wake_open(struct fdmux_loop *loop);
/* Waits for threads that are ringing now, since the descriptor's number may be reused
 * at once. Comes before the backend's `close`. */
void fdmux__wake_close(struct fdmux_loop *loop);
/* End the wait that is under way, or else the next one. Returns 0 or -errno. */
int fdmux__wake_ring(struct fdmux_loop *loop);
/* Forget that it was rung. Returns 0 or -errno. */
int fdmux__wake_silence(struct fdmux_loop *loop);

#endif
