/* gate.h: the checks and the lock at every entry to a loop.
 *
 * Also notices forks: the kernel objects of a loop are shared across fork(2), and a
 * child that changed them would change its parent's. So a counter rises in each child
 * (fdmux__fork_generation), and every entry point compares it with the loop's own. */
#ifndef FDMUX_GATE_H
#define FDMUX_GATE_H

#include "loop_state.h"

#define FDMUX__LOOP_MAGIC UINT64_C(0x66646d75786c6f6f) /* "fdmuxloo" */

/* 0, -EFAULT for NULL, or -E2BIG unless `options` begins with its own size, which must
 * be `size`. */
int fdmux__options_check(const void *options, size_t size);
/* The same, for a function that writes its result to `ret`: -EFAULT for NULL, too. */
int fdmux__arguments_check(const void *options, size_t size, const void *ret);

/* 0, or -EINVAL for unknown `flags`, or unless a watcher has either a function or
 * FDMUX_COLLECT. */
int fdmux__collect_check(uint32_t flags, bool has_no_fn);

/* Called when a function has returned in a child of fork(); returns -ECHILD. */
int fdmux__fork_return(struct fdmux_loop *loop);

/* 0, -EFAULT for NULL, -EINVAL for what is no loop, -ESTALE for a closed one, -ECHILD
 * in a child of fork(). */
int fdmux__loop_check(struct fdmux_loop *loop);
/* Check, then lock; check again whether the loop was closed meanwhile. */
int fdmux__loop_lock(struct fdmux_loop *loop);
void fdmux__loop_unlock(struct fdmux_loop *loop);

static inline bool fdmux__is_loop(const struct fdmux_loop *loop)
{
    return loop != NULL && loop->magic == FDMUX__LOOP_MAGIC;
}

/* Was this process forked from the one that made the loop? */
static inline bool fdmux__loop_is_forked(const struct fdmux_loop *loop)
{
    return loop->fork_generation != fdmux__fork_generation();
}

/* Record the result of a function given to the loop, on the dispatching thread. A
 * function that returns in a child of fork() must not continue its parent's batch. */
static inline int fdmux__fn_result(struct fdmux_loop *loop, int result)
{
    if (fdmux__loop_is_forked(loop))
        return fdmux__fork_return(loop);
    if (result < 0)
        loop->fn_error = result;
    return result;
}

#endif
