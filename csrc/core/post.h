/* post.h: functions that any thread gives to the dispatching thread. All of it runs
 * without the loop's lock. */
#ifndef FDMUX_POST_H
#define FDMUX_POST_H

#include "loop_state.h"

struct fdmux__batch;

struct fdmux__post {
    fdmux_post_fn fn;
    void *userdata;
};

int fdmux__post_open(struct fdmux_loop *loop);
/* Call what was posted before this call began. */
int fdmux__post_dispatch(struct fdmux_loop *loop, struct fdmux__batch *batch);
/* Accept no more posts, and call those that are left with a NULL loop. */
void fdmux__post_close(struct fdmux_loop *loop);
/* Forget all posts: after fork(2) they are the parent's. */
void fdmux__post_drop(struct fdmux_loop *loop);
void fdmux__post_free(struct fdmux_loop *loop);

static inline bool fdmux__post_pending(const struct fdmux_loop *loop)
{
    return loop->running_next < loop->running.count ||
           atomic_load(&loop->incoming_count) > 0;
}

#endif
