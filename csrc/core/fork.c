/* fork.c: use of a loop in a child of fork(2), with new kernel objects. */
#include "fork.h"

#include <errno.h>

#include "../backends/backend.h"
#include "../backends/choose.h"
#include "gate.h"
#include "hold.h"
#include "node.h"
#include "post.h"
#include "retire.h"
#include "wake.h"

void fdmux__fork_forget_threads(struct fdmux_loop *loop)
{
    (void)fdmux__lock_open(&loop->lock);
    (void)fdmux__lock_open(&loop->post_lock);
    fdmux__post_drop(loop);
    loop->is_dispatching = loop->is_waiting = loop->is_calling = false;
    /* Holds that were entered belong to the function that forked, which leaves them or
     * has ended with its thread. */
    loop->hold_count = 0;
    fdmux__calling_end(loop);
    atomic_store(&loop->waker_count, 0);
}

/* What was pending is the parent's. */
static void forget_pending(struct fdmux_loop *loop)
{
    loop->is_hosted = false;
    loop->event_count = 0;
    loop->pending_error = 0;
    loop->parked_deadline_ns = loop->steady_deadline_ns = 0;
    atomic_store(&loop->is_wake_rung, false);
    atomic_store(&loop->is_wake_wanted, false);
    atomic_store(&loop->is_stop_wanted, false);
}

/* Close the child's copies of the kernel objects, and open new ones. */
static int open_again(struct fdmux_loop *loop)
{
    const char *name = loop->backend->name;
    int r;

    fdmux__wake_close(loop);
    loop->backend->close(loop);
    r = fdmux__backend_open(loop, name);
    return r < 0 ? r : fdmux__node_tell_all(loop);
}

int fdmux_loop_after_fork(struct fdmux_loop *loop)
{
    int r = fdmux__loop_check(loop);

    if (r != -ECHILD)
        return r;
    fdmux__fork_forget_threads(loop);
    forget_pending(loop);
    r = open_again(loop);
    if (r == 0) {
        loop->fork_generation = fdmux__fork_generation();
        fdmux__reap(loop);
    }
    return r;
}
