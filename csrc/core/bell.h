/* bell.h: a descriptor that any thread can make readable. Loops are woken by one, and
 * queues are watched by one.
 *
 * It is an eventfd(2), or a pipe where that is missing; then the two ends differ. It
 * carries no data and keeps no state: the owner knows whether it was rung. */
#ifndef FDMUX_BELL_H
#define FDMUX_BELL_H

/* Close-on-exec and non-blocking. Returns 0 or -errno. */
int fdmux__bell_open(int *ret_read_fd, int *ret_write_fd);
/* Accepts -1 for a bell that was not opened. */
void fdmux__bell_close(int read_fd, int write_fd);
/* Make the bell readable; 0 also if it is full, and so readable already. Preserves
 * errno, so a signal handler may call it. Returns 0 or -errno. */
int fdmux__bell_ring(int write_fd);
/* Make the bell unreadable, however often it was rung. Returns 0 or -errno. */
int fdmux__bell_silence(int read_fd);

#endif
