/* bell.h: a descriptor that any thread makes readable: what wakes a loop, and what a
 * queue of items is watched by.
 *
 * An eventfd(2), or a pipe where that is missing; then the two ends differ. Carries no
 * data. Knows nothing about who rings and who listens, and keeps no state: whether it
 * has been rung already is for its owner to know. */
#ifndef FDMUX_BELL_H
#define FDMUX_BELL_H

/* Close-on-exec and non-blocking. Returns 0 or -errno. */
int fdmux__bell_open(int *ret_read_fd, int *ret_write_fd);
/* Accepts -1 for a bell that was never opened. */
void fdmux__bell_close(int read_fd, int write_fd);
/* Make `read_fd` readable; a full one is readable already. Leaves errno alone, so a
 * signal handler may call it. Returns 0 or -errno. */
int fdmux__bell_ring(int write_fd);
/* Make it not readable, however often it was rung. Returns 0 or -errno. */
int fdmux__bell_silence(int read_fd);

#endif
