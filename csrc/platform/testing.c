/* testing.c: the faults and counters of testing.h.
 *
 * Compiled into test builds only. All state is atomic, because any thread may call the
 * core. */
#include "testing.h"

#include <stdatomic.h>

static _Atomic uint32_t fault_kinds;
static _Atomic int64_t fault_nth;
static _Atomic int fault_error;
static _Atomic int fault_persistent;
static _Atomic int64_t call_count;
static _Atomic int64_t allocation_count;
static _Atomic int64_t short_length;

void fdmux_testing_fail(uint32_t kinds, int64_t nth, int error, int persistent)
{
    atomic_store(&fault_kinds, 0); /* no call fails while the settings change */
    atomic_store(&call_count, 0);
    atomic_store(&fault_nth, nth);
    atomic_store(&fault_error, error);
    atomic_store(&fault_persistent, persistent);
    atomic_store(&fault_kinds, kinds);
}

void fdmux_testing_short(int64_t length_max)
{
    atomic_store(&short_length, length_max);
}

int64_t fdmux_testing_calls(void)
{
    return atomic_load(&call_count);
}

int64_t fdmux_testing_allocations(void)
{
    return atomic_load(&allocation_count);
}

int fdmux__fault(uint32_t kind)
{
    int64_t nth = atomic_load(&fault_nth);
    int64_t call;

    if ((atomic_load(&fault_kinds) & kind) == 0)
        return 0;
    call = atomic_fetch_add(&call_count, 1) + 1;
    if (nth == 0 || call < nth || (call > nth && !atomic_load(&fault_persistent)))
        return 0;
    return -atomic_load(&fault_error);
}

size_t fdmux__short(size_t size)
{
    int64_t length_max = atomic_load(&short_length);

    return length_max > 0 && size > (size_t)length_max ? (size_t)length_max : size;
}

void fdmux__count_memory(int change)
{
    atomic_fetch_add(&allocation_count, change);
}
