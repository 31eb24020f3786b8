/* finish.c: see finish.h. Called by fdmux__loop_close, or, if the loop is closed during
 * a dispatch, by that dispatch at its end. Until is_closed is set, calls are accepted.
 */
#include "finish.h"

#include "../backends/backend.h"
#include "../platform/sys.h"
#include "gate.h"
#include "hold.h"
#include "hook.h"
#include "io.h"
#include "post.h"
#include "retire.h"
#include "timer.h"
#include "wake.h"

void fdmux__loop_free(struct fdmux_loop *loop)
{
    fdmux__slots_free(&loop->ios);
    fdmux__slots_free(&loop->nodes);
    fdmux__slots_free(&loop->timers);
    fdmux__slots_free(&loop->hooks);
    fdmux__heap_free(&loop->heap);
    fdmux__post_free(loop);
    fdmux__fd_table_free(&loop->fds);
    fdmux__sys_free(loop->events);
    fdmux__lock_close(&loop->lock); /* no other thread is left */
    loop->magic = 0;
    fdmux__sys_free(loop);
}

/* Announce the end while everything still works; the functions are one batch. In a
 * child of fork(2) what they would close is the parent's. */
static void announce(struct fdmux_loop *loop)
{
    if (fdmux__load(&loop->first_close_hook) == FDMUX__SLOT_NONE ||
        fdmux__loop_is_forked(loop))
        return;
    loop->is_dispatching = true;
    fdmux__batch_begin(loop);
    fdmux__hook_close(loop);
    fdmux__batch_end(loop);
    loop->is_dispatching = false;
}

/* Their functions may take holds. */
static void close_extensions(struct fdmux_loop *loop)
{
    fdmux__calling_begin(loop);
    for (int i = 0; i < FDMUX__EXTENSION_COUNT; i++) {
        if (loop->extensions[i].hooks != NULL)
            loop->extensions[i].hooks->close(loop);
    }
    fdmux__hold_leave_all(loop);
    fdmux__calling_end(loop);
}

void fdmux__loop_finish(struct fdmux_loop *loop)
{
    bool is_destroyed;

    announce(loop);
    atomic_store(&loop->is_closed, true);
    fdmux__loop_unlock(loop);
    fdmux__post_close(loop);
    close_extensions(loop);
    fdmux__lock_take(&loop->lock);
    fdmux__io_kill_all(loop);
    fdmux__timer_kill_all(loop);
    fdmux__hook_kill_all(loop);
    fdmux__reap(loop);
    fdmux__wake_close(loop);
    if (loop->backend != NULL)
        loop->backend->close(loop);
    loop->is_finished = true;
    is_destroyed = loop->is_destroyed;
    fdmux__loop_unlock(loop);
    if (is_destroyed)
        fdmux__loop_free(loop);
}
