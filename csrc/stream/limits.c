/* limits.c: checks the options of a stream and fills in the defaults.
 *
 * A listener and the streams it has accepted share one object, which lives as long as
 * the last of them. So do other streams whose options are the same. */
#include "stream.h"

#include <errno.h>

#include "../platform/sys.h"

#define TICKS_PER_S 4

/* Rounded up: a timeout comes late, never early. */
uint32_t fdmux__ticks_of(int64_t timeout_ns)
{
    int64_t ticks;

    if (timeout_ns <= 0)
        return 0;
    ticks = (timeout_ns - 1) / (FDMUX__NS_PER_S / TICKS_PER_S) + 1;
    return ticks >= INT32_MAX ? INT32_MAX : (uint32_t)ticks;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == 0 ? otherwise : value;
}

int fdmux__stream_check_options(const struct fdmux_stream_options *options)
{
    int r = fdmux__options_check(options, sizeof *options);

    if (r < 0)
        return r;
    if (options->fn == NULL || (options->flags & ~(uint32_t)FDMUX_STREAM_BORROW) != 0 ||
        options->receive_max > FDMUX__RECEIVE_MAX || options->queue_max > INT32_MAX ||
        options->idle_timeout_ns < 0 || options->stall_timeout_ns < 0)
        return -EINVAL;
    return 0;
}

/* Set all but the reference count and the totals. */
static void set_limits(struct fdmux__stream_limits *limits,
                       const struct fdmux_stream_options *options)
{
    limits->receive_max = or_default(options->receive_max, FDMUX__RECEIVE_DEFAULT);
    limits->queue_max = or_default(options->queue_max, 256 << 10);
    limits->queue_high = or_default(options->queue_high, 64 << 10);
    limits->queue_low = or_default(options->queue_low, 16 << 10);
    limits->connection_max = options->connection_max;
    limits->idle_ticks = fdmux__ticks_of(options->idle_timeout_ns);
    limits->stall_ticks = fdmux__ticks_of(options->stall_timeout_ns);
}

static bool are_equal(const struct fdmux__stream_limits *one,
                      const struct fdmux__stream_limits *other)
{
    return one->receive_max == other->receive_max &&
           one->queue_max == other->queue_max && one->queue_high == other->queue_high &&
           one->queue_low == other->queue_low &&
           one->connection_max == other->connection_max &&
           one->idle_ticks == other->idle_ticks &&
           one->stall_ticks == other->stall_ticks;
}

struct fdmux__stream_limits *
fdmux__stream_create_limits(const struct fdmux_stream_options *options)
{
    struct fdmux__stream_limits *limits = fdmux__sys_calloc(1, sizeof *limits);

    if (limits == NULL)
        return NULL;
    limits->reference_count = 1;
    set_limits(limits, options);
    return limits;
}

struct fdmux__stream_limits *
fdmux__stream_share_limits(struct fdmux__hub *hub,
                           const struct fdmux_stream_options *options)
{
    struct fdmux__stream_limits wanted = {0};

    set_limits(&wanted, options);
    if (hub->last_limits == NULL || !are_equal(hub->last_limits, &wanted)) {
        struct fdmux__stream_limits *created = fdmux__stream_create_limits(options);

        if (created == NULL)
            return NULL;
        fdmux__stream_release_limits(hub->last_limits);
        hub->last_limits = created;
    }
    hub->last_limits->reference_count++;
    return hub->last_limits;
}

void fdmux__stream_release_limits(struct fdmux__stream_limits *limits)
{
    if (limits != NULL && atomic_fetch_sub(&limits->reference_count, 1) == 1)
        fdmux__sys_free(limits);
}
