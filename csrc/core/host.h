/* host.h: when a loop must run again, and what tells a foreign loop. */
#ifndef FDMUX_HOST_H
#define FDMUX_HOST_H

#include "loop_state.h"
#include "post.h"

/* The first deadline may have changed: wake the thread that waits, or move the host's
 * timer earlier. For changes outside of a batch, with the lock held. */
void fdmux__deadline_changed(struct fdmux_loop *loop);
/* Something that a hook may depend on has changed: if the loop has hooks and a host
 * waits, wake the host, since hooks run only in a dispatch. With the lock held. */
void fdmux__host_notify(struct fdmux_loop *loop);
/* Set the timer in the host's descriptor to the next deadline, with the lock held. A
 * deadline later than the one set is ignored unless `may_move_later`. */
void fdmux__host_arm(struct fdmux_loop *loop, bool may_move_later);
/* The dispatch of a hosted loop ends: the host waits from here on. With the lock held.
 */
void fdmux__host_rest(struct fdmux_loop *loop);
/* Make the host dispatch, since an extension has something pending. Does nothing inside
 * a dispatch, which calls the extensions before it returns. */
void fdmux__extension_wake_host(struct fdmux_loop *loop);

/* Does a part on top of the core have something to do? */
static inline bool fdmux__extensions_pending(const struct fdmux_loop *loop)
{
    bool is_pending = false;

    for (int i = 0; i < FDMUX__EXTENSION_COUNT && !is_pending; i++)
        is_pending = loop->extensions[i].hooks != NULL &&
                     loop->extensions[i].hooks->is_pending(loop);
    return is_pending;
}

/* When the loop must run again whatever its descriptors do; 0 for at once. */
static inline int64_t fdmux__next_deadline(const struct fdmux_loop *loop)
{
    if (loop->event_count > 0 || loop->pending_error != 0 ||
        fdmux__post_pending(loop) || atomic_load(&loop->is_wake_wanted) ||
        fdmux__extensions_pending(loop))
        return 0;
    return fdmux__heap_deadline(&loop->heap);
}

#endif
