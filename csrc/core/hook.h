/* hook.h: functions that run before each wait, and those that run at the close. */
#ifndef FDMUX_HOOK_H
#define FDMUX_HOOK_H

#include "retire.h"

struct fdmux__hook {
    struct fdmux__watcher base;
    fdmux_hook_fn fn;         /* before each wait; or NULL, */
    fdmux_close_fn close_fn;  /* and this one at the close */
    _Atomic uint32_t next;
    uint32_t born; /* the batch in which it was added; it runs from the next one on */
};

/* Call every hook, without the lock. */
int fdmux__hook_dispatch(struct fdmux_loop *loop);
/* Call the functions of fdmux_loop_at_close, the last added first, until none is left.
 * Releases the lock while one runs. */
void fdmux__hook_close(struct fdmux_loop *loop);
/* With the lock held. */
void fdmux__hook_kill_all(struct fdmux_loop *loop);

#endif
