/* test_timer_model.c: compares 20,000 random timers with a sorted array. */
#include "fixtures.h"

enum { TIMERS = 2000, STEPS = 20000 };

struct entry {
    uint64_t token; /* 0: removed */
    bool is_armed;
    int64_t deadline_ns;
    int64_t sequence;
};

struct model {
    struct fdmux_loop *loop;
    struct entry entries[TIMERS];
    int64_t sequence;
    int armed_count;
    uint64_t random;
    int64_t base_ns; /* deadlines are random numbers above this */
    /* Timers that fired, in order. */
    int fired_count;
    int64_t last_deadline_ns;
    int64_t last_sequence;
};

/* Each timer must be armed and due, and come after the one before it. */
static int check_fired(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct model *model = userdata;
    struct entry *found = NULL;

    for (int i = 0; i < TIMERS && found == NULL; i++)
        found = model->entries[i].token == timer ? &model->entries[i] : NULL;
    CHECK(found != NULL && found->is_armed);
    CHECK(fdmux_loop_now(loop) >= found->deadline_ns);
    CHECK(model->last_deadline_ns < found->deadline_ns ||
          (model->last_deadline_ns == found->deadline_ns &&
           model->last_sequence < found->sequence));
    model->last_deadline_ns = found->deadline_ns;
    model->last_sequence = found->sequence;
    found->is_armed = false;
    model->armed_count--;
    model->fired_count++;
    return 0;
}

static void arm(struct model *model, struct entry *entry, int64_t spread_ns)
{
    entry->deadline_ns = model->base_ns + check_random(&model->random) % spread_ns;
    entry->sequence = model->sequence++;
    model->armed_count += entry->is_armed ? 0 : 1;
    entry->is_armed = true;
    CHECK_EQ(fdmux_timer_arm(model->loop, entry->token, entry->deadline_ns, 0), 0);
}

static void disarm(struct model *model, struct entry *entry, bool is_removal)
{
    if (is_removal) {
        CHECK_EQ(fdmux_timer_remove(model->loop, entry->token), 0);
        entry->token = 0;
    } else {
        CHECK_EQ(fdmux_timer_cancel(model->loop, entry->token),
                 entry->is_armed ? 1 : 0);
    }
    model->armed_count -= entry->is_armed ? 1 : 0;
    entry->is_armed = false;
}

static void step(struct model *model, int64_t spread_ns)
{
    struct entry *entry = &model->entries[check_random(&model->random) % TIMERS];
    uint32_t choice = check_random(&model->random) % 8;

    if (entry->token == 0)
        entry->token = add_timer_with(model->loop, check_fired, model);
    if (choice < 6)
        arm(model, entry, spread_ns);
    else
        disarm(model, entry, choice == 7);
}

static void run_model(struct model *model, int steps, int64_t spread_ns)
{
    for (int i = 0; i < steps; i++) {
        step(model, spread_ns);
        if (i % 500 == 0)
            VERIFY(model->loop);
    }
}

/* All deadlines are in the past, so one iteration fires them all, in order. */
TEST(random_timers_fire_in_the_order_of_a_model)
{
    static struct model model;
    int armed_count;

    model = (struct model){.loop = check_open_loop(), .random = 11, .base_ns = 1};
    run_model(&model, STEPS, 700);
    armed_count = model.armed_count;
    CHECK(armed_count > 500);
    CHECK_EQ(poll_once(model.loop), 0);
    CHECK_EQ(model.fired_count, armed_count);
    CHECK_EQ(model.armed_count, 0);
    VERIFY(model.loop);
    fdmux_loop_destroy(model.loop);
}

TEST(random_timers_of_the_next_milliseconds_fire_in_order_and_not_early)
{
    static struct model model;

    model = (struct model){.loop = check_open_loop(), .random = 12};
    model.base_ns = fdmux_loop_now(model.loop) + 20 * MS;
    run_model(&model, 3000, 10 * MS);
    while (model.armed_count > 0)
        CHECK_EQ(fdmux_loop_dispatch(model.loop, 5 * MS, NULL, 0), 0);
    CHECK(model.fired_count > 500);
    VERIFY(model.loop);
    fdmux_loop_destroy(model.loop);
}
