/* hold.c: see hold.h. Holds are entered and left by the calling thread, so the list of
 * them needs no lock. */
#include "hold.h"

#include <errno.h>

#include "gate.h"

bool fdmux__is_calling_thread(const struct fdmux_loop *loop)
{
    return atomic_load_explicit(&loop->calling_thread, memory_order_relaxed) ==
           fdmux__thread_self();
}

void fdmux__calling_begin(struct fdmux_loop *loop)
{
    atomic_store_explicit(&loop->calling_thread, fdmux__thread_self(),
                          memory_order_relaxed);
}

void fdmux__calling_end(struct fdmux_loop *loop)
{
    atomic_store_explicit(&loop->calling_thread, 0, memory_order_relaxed);
}

/* A hold is off the list before its `leave` runs. */
void fdmux__hold_leave_all(struct fdmux_loop *loop)
{
    while (loop->hold_count > 0) {
        struct fdmux__held held = loop->holds[--loop->hold_count];

        held.hold->leave(held.value, held.hold->userdata);
    }
}

static int enter(struct fdmux_loop *loop, const struct fdmux_hold *hold)
{
    void *value;

    if (hold->enter == NULL || hold->leave == NULL)
        return -EINVAL;
    if (loop->hold_count == FDMUX_HOLD_MAX)
        return -ENOSPC;
    /* Python may end the thread in here when the interpreter ends. At this point the
     * thread holds no lock of ours and has left nothing half done. */
    value = hold->enter(hold->userdata);
    loop->holds[loop->hold_count++] = (struct fdmux__held){hold, value};
    return 0;
}

int fdmux_loop_hold(struct fdmux_loop *loop, const struct fdmux_hold *hold)
{
    if (loop == NULL || hold == NULL)
        return -EFAULT;
    if (!fdmux__is_calling_thread(loop)) {
        int r = fdmux__loop_check(loop);

        return r < 0 ? r : -EPERM;
    }
    for (uint32_t i = 0; i < loop->hold_count; i++) {
        if (loop->holds[i].hold == hold)
            return 0;
    }
    return enter(loop, hold);
}

int fdmux_loop_set_return(struct fdmux_loop *loop, fdmux_return_fn fn, void *userdata)
{
    int r = fdmux__loop_lock(loop);

    if (r < 0)
        return r;
    loop->return_fn = fn;
    loop->return_userdata = userdata;
    fdmux__loop_unlock(loop);
    return 0;
}
