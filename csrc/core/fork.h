/* fork.h: a loop in a child of fork(2). */
#ifndef FDMUX_FORK_H
#define FDMUX_FORK_H

struct fdmux_loop;

/* Make the locks of a loop usable in a child, and forget the parent's threads and
 * posted calls. The child has only the calling thread. */
void fdmux__fork_forget_threads(struct fdmux_loop *loop);

#endif
