/* native_exit.c: native threads that go on while the interpreter ends.
 *
 * Its one rule: nothing joins or stops them; they run until the process ends. The
 * caller never frees their loop's memory, as every owner of native threads must do. */
#include <fdmux_api.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum { AHEAD_MAX = 10 * 1000 }; /* pending calls: bounds the memory */

struct target {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
};

static atomic_llong posted;
static atomic_llong called;

static void nap(long ns)
{
    struct timespec time = {.tv_nsec = ns};

    (void)nanosleep(&time, NULL); /* a signal may end it early */
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    (void)loop, (void)userdata;
    atomic_fetch_add(&called, 1);
    return 0;
}

static void *post_for_ever(void *userdata)
{
    struct target *target = userdata;

    for (;;) {
        if (target->api->post(target->loop, on_post, NULL) == 0)
            atomic_fetch_add(&posted, 1);
        while (atomic_load(&posted) - atomic_load(&called) > AHEAD_MAX)
            nap(100 * 1000);
    }
    return NULL;
}

/* Takes each lock of the loop that another thread may take. */
static void *contend_for_ever(void *userdata)
{
    struct target *target = userdata;

    for (;;) {
        struct fdmux_loop_stats stats = {.struct_size = sizeof stats};
        int64_t deadline_ns;

        (void)target->api->loop_wake(target->loop);
        (void)target->api->loop_stats(target->loop, &stats);
        (void)target->api->loop_next_deadline(target->loop, &deadline_ns);
    }
    return NULL;
}

static int start(const struct fdmux_api *api, struct fdmux_loop *loop,
                 void *(*run)(void *))
{
    static struct target target;
    pthread_t thread;
    int r;

    target = (struct target){.api = api, .loop = loop};
    r = pthread_create(&thread, NULL, run, &target);
    return r == 0 ? -pthread_detach(thread) : -r;
}

int64_t exit_post(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    return start(api, loop, post_for_ever);
}

int64_t exit_contend(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    return start(api, loop, contend_for_ever);
}

static atomic_bool is_inside;

static int stay(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    if (loop == NULL)
        return 0;
    atomic_store(&is_inside, true);
    nap(30 * 1000 * 1000);
    return 0;
}

/* Posts a call that keeps the dispatching thread in C for 30 ms. */
int64_t exit_stay(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    return api->post(loop, stay, NULL);
}

int64_t exit_is_inside(const struct fdmux_api *api, struct fdmux_loop *loop)
{
    (void)api, (void)loop;
    return atomic_load(&is_inside);
}
