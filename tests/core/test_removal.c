/* test_removal.c: what a callback removes is not called again; `destroyed` comes once,
 * last, after the batch.
 *
 * Each case has three watchers of every kind, all ready. The middle one of one kind, or
 * a posted call, removes itself, a neighbour, or everything. */
#include "fixtures.h"

enum { IO, TIMER, HOOK, POST, KINDS = POST };
enum { PREVIOUS, SELF, NEXT, ALL, RELATIONS };
enum { MEMBERS = 3 };

struct subject {
    struct scene *scene;
    int kind;
    int place;
    uint64_t token;
    int calls;
    int destroyed;
    bool is_removed;
};

struct scene {
    struct fdmux_loop *loop;
    struct channel channels[MEMBERS];
    struct subject subjects[KINDS][MEMBERS];
    int actor_kind;
    int target_kind;
    int relation;
    bool has_acted;
    bool is_destroying; /* destroy the loop instead of a watcher */
};

static int remove_token(struct fdmux_loop *loop, int kind, uint64_t token)
{
    switch (kind) {
    case IO:
        return fdmux_io_remove(loop, token);
    case TIMER:
        return fdmux_timer_remove(loop, token);
    default:
        return fdmux_hook_remove(loop, token);
    }
}

static void remove_subject(struct subject *subject)
{
    struct fdmux_loop *loop = subject->scene->loop;

    CHECK_EQ(remove_token(loop, subject->kind, subject->token), 0);
    subject->is_removed = true;
    CHECK_EQ(subject->destroyed, 0); /* a function may still use its userdata */
    CHECK_EQ(remove_token(loop, subject->kind, subject->token), -EIDRM);
}

static void act(struct scene *scene)
{
    if (scene->has_acted)
        return;
    scene->has_acted = true;
    if (scene->is_destroying) {
        CHECK(fdmux_loop_destroy(scene->loop) == NULL);
        CHECK_EQ(fdmux_loop_wake(scene->loop), -ESTALE);
        CHECK_EQ(fdmux_io_update(scene->loop, scene->subjects[IO][0].token, 0),
                 -ESTALE);
        CHECK_EQ(scene->subjects[IO][0].destroyed, 0);
    } else if (scene->relation != ALL) {
        remove_subject(&scene->subjects[scene->target_kind][scene->relation]);
    } else {
        for (int i = 0; i < KINDS * MEMBERS; i++)
            remove_subject(&scene->subjects[i / MEMBERS][i % MEMBERS]);
    }
    if (!scene->is_destroying)
        VERIFY(scene->loop);
}

static int called(struct subject *subject)
{
    struct scene *scene = subject->scene;

    CHECK(!subject->is_removed);
    CHECK_EQ(subject->destroyed, 0);
    CHECK(!scene->is_destroying || !scene->has_acted);
    subject->calls++;
    if (subject->kind == scene->actor_kind && subject->place == SELF)
        act(scene);
    return 0;
}

static int io_called(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                     void *userdata)
{
    (void)loop, (void)events;
    CHECK_EQ(io, ((struct subject *)userdata)->token);
    return called(userdata);
}

static int timer_called(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer;
    return called(userdata);
}

static int post_called(struct fdmux_loop *loop, void *userdata)
{
    CHECK(loop != NULL);
    act(userdata);
    return 0;
}

static void subject_destroyed(void *userdata)
{
    ((struct subject *)userdata)->destroyed++;
}

static void add_subject(struct subject *subject)
{
    struct fdmux_loop *loop = subject->scene->loop;
    struct fdmux_io_options io = {
        .struct_size = sizeof io,
        .fd = subject->scene->channels[subject->place].read_fd,
        .events = FDMUX_READ,
        .fn = io_called,
        .userdata = subject,
        .destroyed = subject_destroyed,
    };
    struct fdmux_timer_options timer = {
        sizeof timer, timer_called, subject, subject_destroyed, 0, 0};
    struct fdmux_hook_options hook = {sizeof hook, timer_called, subject,
                                      subject_destroyed};

    if (subject->kind == IO) {
        CHECK_EQ(fdmux_io_add(loop, &io, &subject->token), 0);
    } else if (subject->kind == TIMER) {
        CHECK_EQ(fdmux_timer_add(loop, &timer, &subject->token), 0);
        CHECK_EQ(fdmux_timer_arm(loop, subject->token, 1, MS), 0);
    } else {
        CHECK_EQ(fdmux_hook_add(loop, &hook, &subject->token), 0);
    }
}

static void open_scene(struct scene *scene)
{
    scene->loop = check_open_loop();
    for (int i = 0; i < MEMBERS; i++) {
        scene->channels[i] = open_channel();
        feed(&scene->channels[i]);
    }
    for (int i = 0; i < KINDS * MEMBERS; i++) {
        struct subject *subject = &scene->subjects[i / MEMBERS][i % MEMBERS];

        *subject = (struct subject){scene, i / MEMBERS, i % MEMBERS, 0, 0, 0, false};
        add_subject(subject);
    }
    if (scene->actor_kind == POST)
        CHECK_EQ(fdmux_post(scene->loop, post_called, scene), 0);
}

static void check_after_batch(const struct scene *scene)
{
    for (int i = 0; i < KINDS * MEMBERS; i++) {
        const struct subject *subject = &scene->subjects[i / MEMBERS][i % MEMBERS];
        bool is_gone = subject->is_removed || scene->is_destroying;

        CHECK_EQ(subject->destroyed, is_gone ? 1 : 0);
        CHECK(is_gone || subject->calls >= 1);
    }
}

static void close_scene(struct scene *scene)
{
    if (!scene->is_destroying)
        fdmux_loop_destroy(scene->loop);
    for (int i = 0; i < KINDS * MEMBERS; i++)
        CHECK_EQ(scene->subjects[i / MEMBERS][i % MEMBERS].destroyed, 1);
    for (int i = 0; i < MEMBERS; i++)
        close_channel(&scene->channels[i]);
}

static void run_removal(int actor_kind, int target_kind, int relation)
{
    struct scene scene = {
        .actor_kind = actor_kind,
        .target_kind = target_kind,
        .relation = relation,
    };

    open_scene(&scene);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK(scene.has_acted);
    VERIFY(scene.loop);
    check_after_batch(&scene);
    CHECK_EQ(poll_once(scene.loop), 0);
    VERIFY(scene.loop);
    close_scene(&scene);
}

static void run_removals(int actor_kind)
{
    for (int kind = 0; kind < KINDS; kind++) {
        for (int relation = 0; relation < RELATIONS; relation++)
            run_removal(actor_kind, kind, relation);
    }
}

TEST(io_function_removes_any)
{
    run_removals(IO);
}

TEST(timer_function_removes_any)
{
    run_removals(TIMER);
}

TEST(hook_removes_any)
{
    run_removals(HOOK);
}

TEST(posted_call_removes_any)
{
    run_removals(POST);
}

TEST(any_function_may_destroy_the_loop)
{
    for (int kind = IO; kind <= POST; kind++) {
        struct scene scene = {.actor_kind = kind, .is_destroying = true};

        open_scene(&scene);
        CHECK_EQ(poll_once(scene.loop), -ESTALE);
        check_after_batch(&scene);
        close_scene(&scene);
    }
}

TEST(any_function_may_destroy_a_running_loop)
{
    for (int kind = IO; kind <= POST; kind++) {
        struct scene scene = {.actor_kind = kind, .is_destroying = true};

        open_scene(&scene);
        CHECK_EQ(fdmux_loop_run(scene.loop), -ESTALE);
        close_scene(&scene);
    }
}

TEST(removal_outside_of_a_batch_destroys_at_once)
{
    struct scene scene = {.actor_kind = IO};

    open_scene(&scene);
    for (int i = 0; i < KINDS * MEMBERS; i++) {
        struct subject *subject = &scene.subjects[i / MEMBERS][i % MEMBERS];

        CHECK_EQ(remove_token(scene.loop, subject->kind, subject->token), 0);
        CHECK_EQ(subject->destroyed, 1);
        VERIFY(scene.loop);
    }
    CHECK_EQ(poll_once(scene.loop), 0);
    close_scene(&scene);
}

TEST(loop_that_never_ran_destroys_every_watcher)
{
    struct scene scene = {.actor_kind = IO};

    open_scene(&scene);
    close_scene(&scene);
}

/* ---- `destroyed` may use the loop ---------------------------------------------- */

struct phoenix {
    struct fdmux_loop *loop;
    int fd;
    struct calls calls;
};

static void rise_again(void *userdata)
{
    struct phoenix *phoenix = userdata;

    VERIFY(phoenix->loop);
    watch(phoenix->loop, phoenix->fd, FDMUX_READ, &phoenix->calls);
}

static int remove_self(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    (void)events, (void)userdata;
    CHECK_EQ(fdmux_io_remove(loop, io), 0);
    return 0;
}

TEST(destroyed_may_add_another_watcher)
{
    struct fdmux_loop *loop = check_open_loop();
    struct channel channel = open_channel();
    struct phoenix phoenix = {.loop = loop, .fd = channel.read_fd};
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = channel.read_fd,
        .events = FDMUX_READ,
        .fn = remove_self,
        .userdata = &phoenix,
        .destroyed = rise_again,
    };
    uint64_t io;

    CHECK_EQ(fdmux_io_add(loop, &options, &io), 0);
    feed(&channel);
    CHECK_EQ(poll_once(loop), 0);
    VERIFY(loop);
    CHECK_EQ(stats_of(loop).io_live, 1);
    CHECK_EQ(poll_once(loop), 0);
    CHECK_EQ(phoenix.calls.count, 1);
    fdmux_loop_destroy(loop);
    CHECK_EQ(phoenix.calls.destroyed, 1);
    close_channel(&channel);
}

static void use_closing_loop(void *userdata)
{
    struct phoenix *phoenix = userdata;

    CHECK_EQ(try_watch(phoenix->loop, phoenix->fd, FDMUX_READ), -ESTALE);
    CHECK_EQ(fdmux_post(phoenix->loop, count_post, NULL), -ESTALE);
    CHECK(fdmux_loop_destroy(NULL) == NULL);
    phoenix->calls.destroyed++;
}

TEST(destroyed_gets_estale_from_a_closing_loop)
{
    struct fdmux_loop *loop = check_open_loop();
    struct phoenix phoenix = {.loop = loop, .fd = 0};
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .userdata = &phoenix,
        .destroyed = use_closing_loop,
        .flags = FDMUX_COLLECT,
    };
    uint64_t timer;

    CHECK_EQ(fdmux_timer_add(loop, &options, &timer), 0);
    fdmux_loop_destroy(loop);
    CHECK_EQ(phoenix.calls.destroyed, 1);
}
