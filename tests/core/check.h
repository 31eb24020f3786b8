/* check.h: the framework of the C tests: cases, checks, and a loop on the chosen
 * backend.
 *
 * A case is TEST(name) { ... }. The program runs one case by its name, on the backend
 * that FDMUX_TEST_BACKEND names. A case fails if it leaks a descriptor or memory of the
 * core. conftest.py finds the cases with a regular expression, so each macro must begin
 * a line. */
#ifndef FDMUX_TESTS_CHECK_H
#define FDMUX_TESTS_CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fdmux.h"
#include "macos.h"
#include "testing.h"

struct check_case {
    const char *name;
    void (*run)(void);
    struct check_case *next;
};

void check_register(struct check_case *added);
_Noreturn void check_fail(const char *file, int line, const char *format, ...);

/* TEST runs on every backend, SET_TEST on those whose kernel keeps the set (all but
 * poll), EDGE_TEST on those of them that report urgent data by edges, so that streams
 * are watched so, BELL_TEST on those that are woken by a descriptor (all but kqueue),
 * EPOLL_TEST and so on on one of them. SLOW_TEST takes more than 0.25 s. UNIT_TEST
 * needs no loop. */
#define TEST(name) CHECK_CASE(name)
#define SET_TEST(name) CHECK_CASE(name)
#define EDGE_TEST(name) CHECK_CASE(name)
#define BELL_TEST(name) CHECK_CASE(name)
#define EPOLL_TEST(name) CHECK_CASE(name)
#define KQUEUE_TEST(name) CHECK_CASE(name)
#define AFD_TEST(name) CHECK_CASE(name)
#define POLL_TEST(name) CHECK_CASE(name)
#define SLOW_TEST(name) CHECK_CASE(name)
#define UNIT_TEST(name) CHECK_CASE(name)

#define CHECK_CASE(name)                                                               \
    static void test_##name(void);                                                     \
    __attribute__((constructor)) static void register_##name(void)                     \
    {                                                                                  \
        static struct check_case this_case = {#name, test_##name, NULL};               \
                                                                                       \
        check_register(&this_case);                                                    \
    }                                                                                  \
    static void test_##name(void)

#define CHECK(condition) check_true((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(actual, expected)                                                     \
    check_equal((long long)(actual), (long long)(expected), __FILE__, __LINE__,        \
                #actual " is not " #expected)

static inline void check_true(bool condition, const char *file, int line,
                              const char *text)
{
    if (!condition)
        check_fail(file, line, "not true: %s", text);
}

static inline void check_equal(long long actual, long long expected, const char *file,
                               int line, const char *text)
{
    if (actual != expected)
        check_fail(file, line, "%s: %lld, %lld", text, actual, expected);
}

/* fdmux_testing_verify returns the line of the check in verify.c that failed, or 0. */
#define VERIFY(loop) CHECK_EQ(fdmux_testing_verify(loop), 0)

struct fdmux_loop *check_open_loop(void);
const char *check_backend(void);
bool check_is(const char *backend);
/* Does the backend have a descriptor for a host? */
bool check_has_host_fd(void);
int check_open_fds(void);

/* The kernel's set of what it watches, and changes of that. */
#define CALL_SET_OPEN                                                                  \
    (FDMUX_CALL_EPOLL_CREATE | FDMUX_CALL_KQUEUE | FDMUX_CALL_AFD_OPEN)
#define CALL_SET_CHANGE (FDMUX_CALL_EPOLL_CTL | FDMUX_CALL_KEVENT)

/* A seeded generator that gives the same numbers on every machine. */
static inline uint32_t check_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

#endif
