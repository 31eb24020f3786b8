/* testing.h: what tests may do to the core, in builds with FDMUX_TESTING only.
 *
 * Fail the n-th system call or allocation of chosen kinds, once or for ever; count
 * calls and live allocations; check every invariant of a loop. A release build has
 * none of this: the inline stand-ins at the end cost nothing. */
#ifndef FDMUX_TESTING_H
#define FDMUX_TESTING_H

#include <stddef.h>
#include <stdint.h>

struct fdmux_loop;

/* cffi:begin */

/* Kinds of calls, as bits. */
#define FDMUX_CALL_MEMORY 0x001
#define FDMUX_CALL_CLOSE 0x002
#define FDMUX_CALL_READ 0x004
#define FDMUX_CALL_WRITE 0x008
#define FDMUX_CALL_PIPE 0x010
#define FDMUX_CALL_WAIT 0x020
#define FDMUX_CALL_PWAIT2 0x040
#define FDMUX_CALL_EVENTFD 0x080
#define FDMUX_CALL_EPOLL_CREATE 0x100
#define FDMUX_CALL_EPOLL_CTL 0x200
#define FDMUX_CALL_TIMERFD 0x400
#define FDMUX_CALL_RECV 0x800
#define FDMUX_CALL_SEND 0x1000
#define FDMUX_CALL_ACCEPT 0x2000
#define FDMUX_CALL_SOCKET 0x4000 /* socket, setsockopt, bind, listen, connect */
#define FDMUX_CALL_ANY 0x7fff

/* From now on fail the `nth` call (1 is the next) of any kind in `kinds` with -`error`,
 * and, if `persistent`, every later one. nth 0 fails none. Resets the count. */
void fdmux_testing_fail(uint32_t kinds, int64_t nth, int error, int persistent);
/* From now on receive and send at most `length_max` bytes at once; 0 for no limit. */
void fdmux_testing_short(int64_t length_max);
/* Calls of the chosen kinds since fdmux_testing_fail. */
int64_t fdmux_testing_calls(void);
/* Blocks of memory the core holds now, in all loops. */
int64_t fdmux_testing_allocations(void);
/* 0 if every internal structure of `loop` is sound, or the number of the line of
 * verify.c whose check failed. O(everything the loop holds). */
int fdmux_testing_verify(struct fdmux_loop *loop);

/* cffi:end */

#if defined(FDMUX_TESTING)
int fdmux__fault(uint32_t kind);
size_t fdmux__short(size_t size);
void fdmux__count_memory(int change);
#else
static inline int fdmux__fault(uint32_t kind)
{
    (void)kind;
    return 0;
}

static inline size_t fdmux__short(size_t size)
{
    return size;
}

static inline void fdmux__count_memory(int change)
{
    (void)change;
}
#endif

#endif
