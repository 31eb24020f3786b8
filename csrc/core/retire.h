/* retire.h: what every kind of watcher begins with, and how it ends.
 *
 * A watcher is killed (no call of its function starts any more), retired (its memory
 * stays, since the current batch may still refer to it), and reaped after the batch:
 * its slot is recycled and `destroyed` called. All functions but the first need the
 * lock. */
#ifndef FDMUX_RETIRE_H
#define FDMUX_RETIRE_H

#include "fdmux.h"

#include "slots.h"

struct fdmux__watcher {
    struct fdmux__slot slot;
    fdmux_destroyed_fn destroyed;
    void *userdata;
};

/* Give a watcher other userdata, and call `destroyed` for the old one, unless both are
 * the same. Called without the lock. */
void fdmux__watcher_hand_on(struct fdmux__watcher *watcher,
                            fdmux_destroyed_fn destroyed, void *userdata);
void fdmux__retire_init(struct fdmux_loop *loop);
/* Kill and retire the item in slot `index`. */
void fdmux__retire(struct fdmux_loop *loop, struct fdmux__slots *slots, uint32_t index);
/* Between these two this thread calls functions of the loop, and removed watchers are
 * only retired. The end reaps them, and leaves the holds that the functions took. */
void fdmux__batch_begin(struct fdmux_loop *loop);
void fdmux__batch_end(struct fdmux_loop *loop);
/* Reap everything that was retired, unless a batch is calling functions. Releases the
 * lock while `destroyed` runs. */
void fdmux__reap(struct fdmux_loop *loop);

#endif
