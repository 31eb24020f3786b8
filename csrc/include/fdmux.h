/* fdmux.h: the public C interface of fdmux, a small I/O event core.
 *
 * One `struct fdmux_loop` holds file descriptors, timers, posted calls and hooks. The
 * core calls the function of a watcher; the events of a watcher with FDMUX_COLLECT are
 * collected into an array that fdmux_loop_dispatch fills.
 *
 * Functions that can fail return >= 0, or -errno and change nothing; `ret_` parameters
 * are written on success only. Time is int64_t nanoseconds on CLOCK_MONOTONIC. Nothing
 * here prints, aborts, exits or changes signal dispositions.
 *
 * Threads: every function may be called from any thread at any time and takes effect at
 * once, also while another thread waits. One thread dispatches at a time. Only
 * fdmux_loop_wake and fdmux_loop_stop may be called from a signal handler. Functions
 * given to a loop run on the dispatching thread, without a lock of the core held. They
 * may call everything here; fdmux_loop_dispatch and _run of their loop return -EBUSY.
 *
 * Common errors: -EFAULT for a pointer that is NULL and must not be; -E2BIG for a
 * struct whose struct_size is not that of its type; -EINVAL for an unknown flag, a
 * missing function, or something that is no loop; -EIDRM for a token that this loop
 * does not have (any more); -ESTALE for a closed loop; -ECHILD in a child of fork()
 * before fdmux_loop_after_fork.
 *
 * Tokens of watchers, timers, hooks and streams are never 0, so 0 can stand for none.
 *
 * Python extensions include fdmux_python.h instead, and link nothing; fdmux_api.h has
 * the table of functions that it uses. */
#ifndef FDMUX_H
#define FDMUX_H

#include <stddef.h>
#include <stdint.h>

#define FDMUX_VERSION "0.3.0"

#ifndef FDMUX_API
#define FDMUX_API /* the core is a static library; set this to build a shared one */
#endif

/* What errno.h of Windows lacks, with the number that Winsock and Python have. */
#if defined(_WIN32) && !defined(ESTALE)
#define ESTALE 10070
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a struct and a function of one name */
#endif

/* What the system calls a descriptor: a small number, or a socket of Winsock, which
 * loops on Windows watch (winsock2.h: UINT_PTR). Functions that return one return an
 * int, or -errno: handles of Windows have 32 bits that count, also in programs of 64
 * ("Interprocess Communication Between 32-bit and 64-bit Applications" of Microsoft).
 */
#if defined(_WIN32)
typedef uintptr_t fdmux_fd;
#else
typedef int fdmux_fd;
#endif
#define FDMUX_NO_FD ((fdmux_fd) - 1)

/* cffi:begin */

#define FDMUX_ABI_MAJOR 1
#define FDMUX_ABI_MINOR 2

/* Readiness. READ and WRITE have the numbers of Python's selectors. */
#define FDMUX_READ 0x01        /* reading does not block */
#define FDMUX_WRITE 0x02       /* writing does not block */
#define FDMUX_PRIORITY 0x04    /* out-of-band or exceptional data, poll(2) POLLPRI */
#define FDMUX_PEER_CLOSED 0x08 /* the peer shut down its writing side */
#define FDMUX_HANGUP 0x10      /* hung up; always watched, wakes READ and WRITE too */
#define FDMUX_ERROR 0x20       /* error; always watched, wakes READ and WRITE too */
#define FDMUX_TIMER 0x40       /* only in a struct fdmux_ready: a timer expired */

/* Options of one io watcher, added to its events. */
#define FDMUX_EDGE 0x100      /* report changes only; -EOPNOTSUPP on poll */
#define FDMUX_ONESHOT 0x200   /* report once, then nothing until fdmux_io_update */
#define FDMUX_EXCLUSIVE                                                                \
    0x400 /* wake one of several loops; -EOPNOTSUPP on poll and kqueue;                \
           * with READ and WRITE only (epoll_ctl(2): -EINVAL) */

/* Kernel features a loop found, in struct fdmux_loop_stats. */
#define FDMUX_FEATURE_FD 0x01          /* fdmux_loop_fd works */
#define FDMUX_FEATURE_TIMER_IN_FD 0x02 /* that fd becomes readable for timers too */
#define FDMUX_FEATURE_NANOSECONDS 0x04 /* waits are exact below a millisecond */
#define FDMUX_FEATURE_EDGE 0x08        /* FDMUX_EDGE works */
#define FDMUX_FEATURE_EXCLUSIVE 0x10   /* FDMUX_EXCLUSIVE works */
#define FDMUX_FEATURE_HANDLE 0x20      /* fdmux_loop_handle works */

/* Flags of io watchers and timers. */
#define FDMUX_COLLECT 0x01 /* no function: dispatch collects the events */

#define FDMUX_SOON 0 /* a deadline for fdmux_timer_arm: before the loop sleeps */

#define FDMUX_HOLD_MAX 8 /* different holds in one batch */

struct fdmux_loop;
struct fdmux_queue;

/* A collected event: the watcher's token and tag, and what is ready. */
struct fdmux_ready {
    uint64_t token;
    uint32_t events;
    uint32_t tag;
};

/* Functions given to a loop. A negative result ends the batch: dispatch returns it. The
 * watcher stays, and the events that remain are reported by the next dispatch. */
typedef int (*fdmux_io_fn)(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                           void *userdata);
typedef int (*fdmux_timer_fn)(struct fdmux_loop *loop, uint64_t timer, void *userdata);
typedef int (*fdmux_hook_fn)(struct fdmux_loop *loop, uint64_t hook, void *userdata);
/* `loop` is NULL if the loop was closed before the call. */
typedef int (*fdmux_post_fn)(struct fdmux_loop *loop, void *userdata);
/* See fdmux_loop_at_close. */
typedef void (*fdmux_close_fn)(struct fdmux_loop *loop, void *userdata);
/* Called exactly once, after the last call with this userdata has returned. */
typedef void (*fdmux_destroyed_fn)(void *userdata);
/* See fdmux_loop_set_return. */
typedef int (*fdmux_return_fn)(struct fdmux_loop *loop, void *userdata);
/* Frees an item that was not taken from a queue; called once for each. */
typedef void (*fdmux_queue_drop_fn)(void *item, void *userdata);

/* Options begin with their own size: set it with sizeof, and unused fields to 0. */
struct fdmux_loop_options {
    size_t struct_size;
    uint32_t flags;      /* none yet: 0 */
    const char *backend; /* "kqueue", "epoll", "afd", "poll", or NULL for the best */
};

struct fdmux_io_options {
    size_t struct_size;
    fdmux_fd fd; /* open, or FDMUX_NO_FD for none yet; stays the caller's; never closed
                    here */
    uint32_t events; /* readiness and options; 0 watches nothing until updated */
    fdmux_io_fn fn; /* NULL with FDMUX_COLLECT */
    void *userdata; /* given back to fn and destroyed */
    fdmux_destroyed_fn destroyed; /* may be NULL */
    uint32_t tag; /* given back in struct fdmux_ready; yours to choose */
    uint32_t flags; /* 0 or FDMUX_COLLECT */
};

struct fdmux_timer_options {
    size_t struct_size;
    fdmux_timer_fn fn; /* NULL with FDMUX_COLLECT: collected as FDMUX_TIMER */
    void *userdata;
    fdmux_destroyed_fn destroyed;
    uint32_t tag; /* given back in struct fdmux_ready */
    uint32_t flags; /* 0 or FDMUX_COLLECT */
};

struct fdmux_hook_options {
    size_t struct_size;
    fdmux_hook_fn fn; /* not NULL */
    void *userdata;
    fdmux_destroyed_fn destroyed;
};

struct fdmux_queue_options {
    size_t struct_size;
    fdmux_queue_drop_fn drop; /* may be NULL: items need no freeing */
    void *userdata; /* given back to drop */
    uint32_t capacity; /* items at a time; 0: no bound */
    uint32_t reserved; /* 0 */
};

/* A lock that functions of a loop keep until the end of a batch, such as Python's GIL.
 * `enter` takes it and may wait; `leave` gets the result of `enter`. The struct must
 * stay valid until `leave` has returned: make it static const. */
struct fdmux_hold {
    void *(*enter)(void *userdata);
    void (*leave)(void *held, void *userdata);
    void *userdata;
};

/* Counters since the loop was created, and how much it has now. */
struct fdmux_loop_stats {
    size_t struct_size;
    uint64_t iteration_count;
    uint64_t io_called_count;
    uint64_t io_collected_count;
    uint64_t timer_count; /* expiries */
    uint64_t post_count; /* posted calls run */
    uint64_t stale_event_count; /* events of descriptors closed without removal */
    uint64_t rebuild_count; /* kernel sets rebuilt to silence such a descriptor */
    uint32_t io_live;
    uint32_t timer_live;
    uint32_t hook_live;
    uint32_t fd_live; /* distinct descriptors */
    uint32_t features; /* FDMUX_FEATURE_ bits */
    uint32_t reserved;
};

/* ---- loop ---------------------------------------------------------------------- */

/* Create a loop. `options` may be NULL. The caller gets the first reference.
 *
 * Costs at most two descriptors, which other programs do not inherit.
 *
 * Returns 0, -EINVAL, -ENOENT (no such backend), -ENOMEM, -EMFILE, -ENFILE. */
FDMUX_API int fdmux_loop_create(const struct fdmux_loop_options *options,
                                struct fdmux_loop **ret_loop);

/* Close the loop and give up the reference of its creator. Accepts NULL; returns NULL,
 * always.
 *
 * Closing calls the functions of fdmux_loop_at_close, then the remaining posted calls
 * with a NULL loop, then every `destroyed`, in no certain order. Descriptors stay open:
 * they are yours. During a dispatch (inside a callback, or in another thread) this
 * happens at the end of that dispatch, which returns -ESTALE as soon as it can. The
 * memory is freed with the last reference; without one of its own no other call with
 * this loop may begin later. */
FDMUX_API struct fdmux_loop *fdmux_loop_destroy(struct fdmux_loop *loop);

/* Add a reference: the memory stays valid until fdmux_loop_unref, also after the loop
 * was closed; calls then return -ESTALE. Whoever keeps the loop where its end is not
 * announced needs one, such as a thread that posts. Returns `loop`, or NULL for NULL.
 */
FDMUX_API struct fdmux_loop *fdmux_loop_ref(struct fdmux_loop *loop);

/* Give up a reference; the last one closes the loop and frees it. Accepts NULL. Returns
 * NULL, always. */
FDMUX_API struct fdmux_loop *fdmux_loop_unref(struct fdmux_loop *loop);

/* Call fn(loop, userdata) once when the loop is closed, while everything still works:
 * a library closes its own connections there, and removes its watchers.
 *
 * The functions run before any posted call or `destroyed`, the last added first, on the
 * thread that closes the loop, or at the end of the dispatch that is under way. They
 * may call everything, and take holds; no call of them is dispatched any more. The hook
 * has ended when its function is called. fdmux_hook_remove removes it before; what
 * `userdata` points to is then yours again, once no call is under way. Not called in a
 * child of fork() before fdmux_loop_after_fork, where the connections are the parent's.
 *
 * Cost: O(1). Returns 0 or -ENOMEM. */
FDMUX_API int fdmux_loop_at_close(struct fdmux_loop *loop, fdmux_close_fn fn,
                                  void *userdata, uint64_t *ret_hook);

/* Get a descriptor that polls readable when fdmux_loop_dispatch has something to do:
 * descriptors, timers, posted calls.
 *
 * The descriptor belongs to the loop; watch it level-triggered, for reading only. From
 * this call on, a kernel timer inside it is set to the next deadline. A dispatch with
 * nothing to do is harmless.
 *
 * Returns the descriptor, -EOPNOTSUPP on the poll backend, on Windows, and on kqueue
 * while that watches a device beside it, -EMFILE, -ENFILE, -ENOMEM.
 * Without FDMUX_FEATURE_TIMER_IN_FD use fdmux_loop_next_deadline as the timeout. */
FDMUX_API int fdmux_loop_fd(struct fdmux_loop *loop);

/* Get what stands for that descriptor on Windows: the HANDLE of an event that is set
 * while fdmux_loop_dispatch has something to do: sockets, timers, posted calls. For
 * QWinEventNotifier, MsgWaitForMultipleObjects, asyncio's Proactor loop.
 *
 * The event belongs to the loop, and stays the same: only wait for it, in one thread,
 * stop before the loop is closed, and dispatch with a timeout of 0 when it is set. Only
 * a dispatch clears it; one with nothing to do is harmless. What was ready at the end
 * of a dispatch sets it again soon, perhaps when that has returned.
 *
 * From this call on, or from the end of the dispatch that is under way, a thread waits
 * for the loop's sockets and sets the event. It calls no function given to the loop,
 * and ends when the loop is closed. Costs that thread, and two events. Do not close the
 * loop in a function of RegisterWaitForSingleObject with WT_EXECUTEINWAITTHREAD.
 *
 * Returns 0; -EOPNOTSUPP on the poll backend, and on other systems; -EAGAIN, -ENOMEM.
 */
FDMUX_API int fdmux_loop_handle(struct fdmux_loop *loop, void **ret_handle);

/* Get the time of the next timer, for hosts that need a timeout: INT64_MAX for none, a
 * time in the past if posted calls or events are waiting. Returns 0. Cost: O(1). */
FDMUX_API int fdmux_loop_next_deadline(struct fdmux_loop *loop,
                                       int64_t *ret_deadline_ns);

/* Wait, call the functions of ready watchers, and collect the other events.
 *
 * Order of one iteration: hooks, wait, io, timers by (deadline, arming), posted calls
 * in the order of posting. Iterations follow each other until an event is collected,
 * `timeout_ns` has passed (0 polls once, negative waits for ever), fdmux_loop_wake is
 * called, or a signal arrives. `ready` gets at most `capacity` events; the next call
 * reports the others. Pass NULL and 0 if no watcher is collected.
 *
 * A watcher is called once in an iteration, however busy it is. When an iteration ends
 * early, the next one begins with the watchers that had to wait. Timers and posted
 * calls that take more than 50 ms in all are left to the next iteration.
 *
 * Returns the count of collected events, 0 for a timeout or a wake, or
 * -EINTR: a signal arrived, or functions were called for 50 ms: handle signals and
 *         call again;
 * -EBUSY: the loop is being dispatched, by this thread or another;
 * -ENOBUFS: a collected watcher is ready and `capacity` is 0;
 * -ESTALE: the loop was closed meanwhile;
 * the negative result of a function given to the loop, after which everything still
 *         works; -EBADF, -ENOMEM from the kernel. */
FDMUX_API int fdmux_loop_dispatch(struct fdmux_loop *loop, int64_t timeout_ns,
                                  struct fdmux_ready *ready, int capacity);

/* Dispatch until fdmux_loop_stop. For programs without collected watchers.
 *
 * Returns 0 when stopped, or what fdmux_loop_dispatch returned, but for -EINTR. */
FDMUX_API int fdmux_loop_run(struct fdmux_loop *loop);

/* Make fdmux_loop_run return after the callback that is running; before a run, make the
 * next one return at once. Any thread, or a signal handler. Returns 0. */
FDMUX_API int fdmux_loop_stop(struct fdmux_loop *loop);

/* Make the waiting dispatch, or the next one, return 0 at once. Inside a function of
 * the loop: make dispatch return after this batch, without a system call.
 *
 * Several wakes may cause one return; none is lost, none blocks. Any thread, or a
 * signal handler. Returns 0, or the error of write(2) when a sandbox forbids it. */
FDMUX_API int fdmux_loop_wake(struct fdmux_loop *loop);

/* Take `hold`, a lock or Python's GIL, until the end of the batch. Call this inside
 * each function of the loop that needs it.
 *
 * The first call in a batch calls `hold->enter`; later calls with the same `hold` cost
 * a comparison. At the end of the batch (before the wait, and before dispatch returns)
 * the core calls `leave` of each hold, the last entered first, without a lock of its
 * own held. A batch without holds costs nothing.
 *
 * Functions that run later in the batch run with the hold too. One that waits for a
 * thread which needs the same lock would wait for ever.
 *
 * Returns 0; -EPERM outside of a function of this loop; -EINVAL for a hold without
 * functions; -ENOSPC for more than FDMUX_HOLD_MAX holds in one batch. */
FDMUX_API int fdmux_loop_hold(struct fdmux_loop *loop, const struct fdmux_hold *hold);

/* Set a function that decides after a batch whether dispatch returns: positive makes it
 * return, 0 lets it go on. For the caller of dispatch; one for each loop, NULL for
 * none.
 *
 * The core calls `fn` after each batch that has called functions of io, timers, posted
 * calls or streams; not after hooks alone. It runs on the dispatching thread with the
 * loop locked and nothing held: it must only read, and call nothing here. Returns 0. */
FDMUX_API int fdmux_loop_set_return(struct fdmux_loop *loop, fdmux_return_fn fn,
                                    void *userdata);

/* CLOCK_MONOTONIC now, in nanoseconds, read at each call. */
FDMUX_API int64_t fdmux_loop_now(struct fdmux_loop *loop);

/* The name of the backend in use, a static string; NULL for a NULL loop. */
FDMUX_API const char *fdmux_loop_backend(struct fdmux_loop *loop);

/* Fill `stats`, whose struct_size the caller has set. Returns 0. */
FDMUX_API int fdmux_loop_stats(struct fdmux_loop *loop, struct fdmux_loop_stats *stats);

/* Make the loop usable in a child of fork(): new kernel objects, the same watchers.
 *
 * Before this, every call but fdmux_loop_destroy returns -ECHILD in the child. Call it
 * in the child's only thread, then call fdmux_loop_fd again. Posted calls that the
 * parent had not run are dropped here: the parent runs them. If the fork happened
 * inside a function of the loop, the child must not return from it after this call, nor
 * after fdmux_loop_destroy: it would continue the parent's batch.
 *
 * Returns 0, also when nothing was forked; -EMFILE, -ENFILE, -ENOMEM: try again. */
FDMUX_API int fdmux_loop_after_fork(struct fdmux_loop *loop);

/* ---- io ------------------------------------------------------------------------ */

/* Watch a descriptor. Several watchers may share one. With an `fd` of -1 the watcher
 * watches nothing until fdmux_io_replace_fd gives it a descriptor.
 *
 * Level-triggered unless FDMUX_EDGE. A watcher without a function must ask to be
 * collected (FDMUX_COLLECT); forgotten, it is -EINVAL. A watcher added during a batch
 * gets its first event in the next one. Remove it before you close the descriptor.
 * Cost: O(1) and one system call.
 *
 * Returns 0; -EBADF; -EPERM for a regular file (epoll_ctl(2)), or on kqueue for a
 * terminal or another device after fdmux_loop_fd; -ENOTSOCK on Windows for a handle
 * that is no socket; -EINVAL or -ELOOP for a descriptor of
 * this loop, or of loops that watch each other; -EEXIST when the fd is
 * watched with other FDMUX_EDGE or FDMUX_EXCLUSIVE options; -EOPNOTSUPP for an option
 * the backend lacks; -ENOSPC (epoll_ctl(2), max_user_watches); -ENOMEM. On failure `fn`
 * and `destroyed` are never called and `userdata` is still the caller's. */
FDMUX_API int fdmux_io_add(struct fdmux_loop *loop,
                           const struct fdmux_io_options *options, uint64_t *ret_io);

/* Change what is watched; `events` as in fdmux_io_add. Re-arms EDGE and ONESHOT.
 *
 * The kernel is asked even if nothing changes: if the number means another file by now,
 * epoll reports that one from here on. Cost: O(watchers of this fd) and one system
 * call. Returns 0 or as fdmux_io_add; -EBADF also for a watcher without a descriptor.
 */
FDMUX_API int fdmux_io_update(struct fdmux_loop *loop, uint64_t io, uint32_t events);

/* Watch `fd` for `events` instead, after a reconnect, even if it has the same number:
 * the kernel's entry is made again. With -1 the watcher watches nothing until the next
 * call. Returns 0 or as fdmux_io_add; a failure changes nothing. */
FDMUX_API int fdmux_io_replace_fd(struct fdmux_loop *loop, uint64_t io, fdmux_fd fd,
                                  uint32_t events);

/* Get the descriptor of a watcher. Returns it, or -EBADF if it has none: none yet, or
 * the number was found to mean another file. */
FDMUX_API int fdmux_io_fd(struct fdmux_loop *loop, uint64_t io);

/* Remove a watcher. Its function does not start again on the calling thread.
 *
 * Allowed inside any callback, also its own. `destroyed` runs before this returns, or
 * at the end of the batch if a dispatch is calling functions. Cost: O(watchers of this
 * fd) and at most one system call. Returns 0. */
FDMUX_API int fdmux_io_remove(struct fdmux_loop *loop, uint64_t io);

/* ---- timer --------------------------------------------------------------------- */

/* Add a timer, not armed, and reserve the memory to arm it.
 *
 * Returns 0, -EINVAL (neither `fn` nor FDMUX_COLLECT, or both), -ENOMEM. */
FDMUX_API int fdmux_timer_add(struct fdmux_loop *loop,
                              const struct fdmux_timer_options *options,
                              uint64_t *ret_timer);

/* Arm `timer` to expire at `deadline_ns` (fdmux_loop_now clock), never early, and then
 * every `period_ns` after that deadline; 0 for once.
 *
 * Replaces the old deadline. A deadline in the past counts as now: the timer expires
 * after the io of this iteration or the next, before the loop sleeps, never inside this
 * call. So FDMUX_SOON runs a function soon and once, however often it was armed.
 * Periods do not drift; missed ones are skipped. Cost: O(log n) in armed timers; needs
 * no memory.
 *
 * Returns 0, or -EINVAL for a negative deadline or period. */
FDMUX_API int fdmux_timer_arm(struct fdmux_loop *loop, uint64_t timer,
                              int64_t deadline_ns, int64_t period_ns);

/* fdmux_timer_arm for `delay_ns` from now, as fdmux_loop_now reads the clock. A delay
 * that is too long for the clock never ends. Returns 0, or -EINVAL for a negative delay
 * or period. */
FDMUX_API int fdmux_timer_arm_in(struct fdmux_loop *loop, uint64_t timer,
                                 int64_t delay_ns, int64_t period_ns);

/* Disarm a timer, which may be armed again. Returns 1 if it was armed, 0 if not. */
FDMUX_API int fdmux_timer_cancel(struct fdmux_loop *loop, uint64_t timer);

/* Cancel and remove a timer; rules and order as fdmux_io_remove. Returns 0. */
FDMUX_API int fdmux_timer_remove(struct fdmux_loop *loop, uint64_t timer);

/* ---- post ---------------------------------------------------------------------- */

/* Call fn(loop, userdata) exactly once on the dispatching thread.
 *
 * The calls that one thread posts run in order. A call posted by a posted call runs in
 * the next iteration. If the loop closes first, `fn` gets a NULL loop. Not for signal
 * handlers. Cost: O(1) amortised, and one write(2) when the loop may sleep. Returns 0,
 * -EINVAL (no fn), -ENOMEM. */
FDMUX_API int fdmux_post(struct fdmux_loop *loop, fdmux_post_fn fn, void *userdata);

/* ---- hook ---------------------------------------------------------------------- */

/* Call a function before each wait, as Wayland, sd-bus and ZeroMQ need it. Hooks run in
 * the order of adding.
 *
 * With a host of fdmux_loop_fd they run at the end of each dispatch, before the host
 * waits. There the loop wakes its host when a hook is added, and when a watcher or
 * timer changes outside of a dispatch. After you have called your library outside of
 * the loop's functions, call fdmux_loop_wake: only you know that its state has changed.
 * Returns 0 or -ENOMEM. */
FDMUX_API int fdmux_hook_add(struct fdmux_loop *loop,
                             const struct fdmux_hook_options *options,
                             uint64_t *ret_hook);

/* Remove a hook, also one of fdmux_loop_at_close; rules as fdmux_io_remove. Cost:
 * O(hooks). Returns 0. */
FDMUX_API int fdmux_hook_remove(struct fdmux_loop *loop, uint64_t hook);

/* ---- queue --------------------------------------------------------------------- */

/* Create a queue of pointers: any thread puts items, one thread takes them in batches.
 *
 * Native threads put results for Python without the GIL. The thread that runs the
 * Python program's loop, of any kind, watches fdmux_queue_fd and takes a batch with the
 * GIL. A queue belongs to no loop. The caller gets the first reference. `options` may
 * be NULL. Costs one descriptor (two without eventfd(2)), close-on-exec and
 * non-blocking.
 *
 * Common errors of the functions below: -EINVAL for a NULL or foreign queue; -ESTALE
 * for a closed one; -ECHILD for one that was created before fork(): a child creates its
 * own. None of them is for signal handlers.
 *
 * Returns 0, -EINVAL, -ENOMEM, -EMFILE, -ENFILE. */
FDMUX_API int fdmux_queue_create(const struct fdmux_queue_options *options,
                                 struct fdmux_queue **ret_queue);

/* Add a reference. Each thread that puts needs its own, so that a late fdmux_queue_put
 * finds a closed queue, not freed memory. Returns `queue`, or NULL for NULL. */
FDMUX_API struct fdmux_queue *fdmux_queue_ref(struct fdmux_queue *queue);

/* Drop a reference; the last one closes and frees the queue. Accepts NULL. Returns
 * NULL, always. */
FDMUX_API struct fdmux_queue *fdmux_queue_unref(struct fdmux_queue *queue);

/* Set the function that frees items, for a queue that was created without `drop`, such
 * as those of Python. Setting the same again is allowed.
 *
 * Returns 0, -EINVAL (no drop), -EBUSY (there is another), -ESTALE, -ECHILD. */
FDMUX_API int fdmux_queue_set_drop(struct fdmux_queue *queue, fdmux_queue_drop_fn drop,
                                   void *userdata);

/* Get the descriptor that is readable exactly while the queue has items. It belongs to
 * the queue: watch it for reading only, and stop before fdmux_queue_close. Returns the
 * descriptor, -ESTALE, -ECHILD. */
FDMUX_API int fdmux_queue_fd(struct fdmux_queue *queue);

/* Append an item, any pointer, NULL included. The items of one thread stay in order.
 *
 * Never blocks for long; needs no GIL. Cost: O(1) amortised, and one write(2) when the
 * queue was empty.
 *
 * Returns 0; on failure the item is still the caller's: -EINVAL; -ESTALE; -ECHILD;
 * -ENOMEM; -ENOBUFS: `capacity` items are waiting; the error of write(2) when a
 * sandbox forbids it. */
FDMUX_API int fdmux_queue_put(struct fdmux_queue *queue, void *item);

/* Move the first items, at most `capacity`, into `items`; the caller owns them then.
 * The descriptor stays readable while items are left.
 *
 * Cost: O(taken), and one read(2) when that empties the queue.
 *
 * Returns the count, 0 for an empty queue; -EINVAL, -ESTALE, -ECHILD; or the error of
 * read(2), with nothing taken and the descriptor still readable. */
FDMUX_API int fdmux_queue_take(struct fdmux_queue *queue, void **items, int capacity);

/* Close the queue and its descriptor: no item can be put or taken any more. Idempotent.
 *
 * Calls `drop` for each item that is left, in order, on this thread, without a lock of
 * the core held; not in a child of fork(), where they are the parent's. Returns 0 or
 * -EINVAL. */
FDMUX_API int fdmux_queue_close(struct fdmux_queue *queue);

/* cffi:end */

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* FDMUX_H */
