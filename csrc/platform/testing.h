/* testing.h: fault injection and checks for tests, in builds with FDMUX_TESTING only.
 *
 * Tests can make the n-th system call or allocation of chosen kinds fail, once or from
 * then on; count calls and live allocations; and check every invariant of a loop. In a
 * release build, empty inline functions replace all of this. */
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
#define FDMUX_CALL_SOCKET 0x4000 /* socket, its options, bind, listen, connect */
#define FDMUX_CALL_RECVMMSG 0x8000
#define FDMUX_CALL_SENDMMSG 0x10000
#define FDMUX_CALL_KQUEUE 0x20000
#define FDMUX_CALL_KEVENT 0x40000 /* a change; waits are FDMUX_CALL_WAIT */
#define FDMUX_CALL_AFD_OPEN 0x80000 /* of a handle */
#define FDMUX_CALL_AFD_POLL 0x100000
#define FDMUX_CALL_ANY 0x1fffff

/* Make the `nth` call from now on (1 is the next) of any kind in `kinds` fail with
 * -`error`, and, if `persistent`, every later one. nth 0: none. Resets the count. */
void fdmux_testing_fail(uint32_t kinds, int64_t nth, int error, int persistent);
/* Receive and send at most `length_max` bytes at once from now on; 0 for no limit. */
void fdmux_testing_short(int64_t length_max);
/* Calls of the chosen kinds since fdmux_testing_fail. */
int64_t fdmux_testing_calls(void);
/* Blocks of memory that are allocated now, in all loops. */
int64_t fdmux_testing_allocations(void);
/* 0 if every invariant of `loop` holds, or the line of verify.c whose check failed.
 * O(everything in the loop). */
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
