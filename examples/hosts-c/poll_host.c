/* poll_host.c: an fdmux loop inside a loop of poll(2), without a thread.
 *
 * A host needs three calls: fdmux_loop_fd gives the descriptor to watch beside its own;
 * fdmux_loop_next_deadline gives the timeout where that descriptor has no timer; and
 * fdmux_loop_dispatch does the work. */
#include <fdmux.h>

#include <limits.h>
#include <poll.h>
#include <stdint.h>

#include "proof.h"

#define HOST_NS (INT64_C(1000000) * HOST_MS)

/* Milliseconds until the deadline, rounded up; -1 for never. */
static int poll_timeout(int64_t deadline_ns, int64_t now_ns)
{
    int64_t left_ms = (deadline_ns - now_ns + 999999) / 1000000;

    if (deadline_ns == INT64_MAX)
        return -1;
    if (deadline_ns <= now_ns)
        return 0;
    return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

static int64_t earlier(int64_t one_ns, int64_t other_ns)
{
    return one_ns < other_ns ? one_ns : other_ns;
}

/* When the host must dispatch the loop even if its descriptor is not readable. */
static int64_t guest_deadline(struct fdmux_loop *loop, uint32_t features)
{
    int64_t deadline_ns = INT64_MAX;

    if ((features & FDMUX_FEATURE_TIMER_IN_FD) == 0)
        (void)fdmux_loop_next_deadline(loop, &deadline_ns); /* on failure: never */
    return deadline_ns;
}

static uint32_t features_of(struct fdmux_loop *loop)
{
    struct fdmux_loop_stats stats = {.struct_size = sizeof stats};

    return fdmux_loop_stats(loop, &stats) < 0 ? 0 : stats.features;
}

static void run_host(struct proof *proof, struct pollfd *guest)
{
    uint32_t features = features_of(proof->loop);
    int64_t tick_ns = fdmux_loop_now(proof->loop) + HOST_NS;
    int64_t wake_ns;
    bool goes_on = true;

    while (goes_on) {
        wake_ns = earlier(tick_ns, guest_deadline(proof->loop, features));
        (void)poll(guest, 1, poll_timeout(wake_ns, fdmux_loop_now(proof->loop)));
        if (fdmux_loop_now(proof->loop) >= tick_ns) { /* the host's own timer */
            proof->host_count++;
            tick_ns += HOST_NS;
        }
        goes_on = proof_dispatch(proof); /* an extra call is harmless */
    }
}

int main(void)
{
    struct proof proof;
    struct pollfd guest = {.events = POLLIN};

    if (proof_start(&proof) < 0)
        return 1;
    guest.fd = fdmux_loop_fd(proof.loop);
    if (guest.fd >= 0)
        run_host(&proof, &guest);
    return proof_end(&proof, "poll");
}
