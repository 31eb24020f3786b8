/* test_reentrancy.c: every kind of callback does everything to its loop, as the first,
 * middle and last one of its batch: 6 kinds, 14 actions, 3 positions, 252 combinations.
 *
 * After any action the other members of the batch get their calls, nothing is called
 * after its end, `destroyed` comes exactly once, and the structures stay valid. */
#include "stream_fixtures.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { IO, TIMER, POST, DESTROYED, ACCEPTED, DATA, KIND_COUNT };
enum { MEMBERS = 3 };

struct scene;

struct member {
    struct scene *scene;
    int place;
    uint64_t token; /* 0: this kind has no token */
    int fds[2];     /* the watched descriptor and the other end; -1: none */
    int calls;
    int destroyed;
    bool is_ended;
};

struct scene {
    struct fdmux_loop *loop;
    enum kind kind;
    int place; /* of the member that acts */
    void (*action)(struct scene *scene, struct member *self);
    struct member members[MEMBERS];
    struct calls idle; /* a watcher that is not ready, and a timer that is not armed */
    uint64_t idle_io;
    uint64_t idle_timer;
    struct channel idle_channel;
    struct channel extra; /* opened by actions */
    struct calls added;
    uint64_t listener;
    int accepted;
    int result; /* what the acting function returns */
    bool has_acted;
    bool is_over; /* the loop was destroyed */
};

/* ---- functions of the members -------------------------------------------------- */

static int happen(struct member *member)
{
    struct scene *scene = member->scene;

    CHECK(!member->is_ended);
    CHECK_EQ(member->destroyed, 0);
    CHECK(!scene->is_over);
    member->calls++;
    if (member->place != scene->place || scene->has_acted)
        return 0;
    scene->has_acted = true;
    scene->action(scene, member);
    return scene->result;
}

static int on_io(struct fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata)
{
    struct member *member = userdata;
    char byte;

    (void)loop, (void)io, (void)events;
    if (read(member->fds[0], &byte, 1) < 0)
        return 0; /* the kernel may report a watcher twice */
    return happen(member);
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)loop, (void)timer;
    return happen(userdata);
}

static int on_post(struct fdmux_loop *loop, void *userdata)
{
    struct member *member = userdata;

    CHECK_EQ(loop == NULL, member->scene->is_over);
    return loop == NULL ? 0 : happen(member);
}

static void on_destroyed(void *userdata)
{
    struct member *member = userdata;

    CHECK_EQ(member->destroyed, 0);
    if (member->scene->kind == DESTROYED && !member->scene->is_over)
        (void)happen(member); /* `destroyed` has no result */
    member->destroyed = 1;
}

static int on_stream(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                     void *userdata)
{
    struct member *member = userdata;

    (void)loop;
    return event->kind == FDMUX_STREAM_DATA ? happen(member) : 0;
}

/* The listener's function: each accepted stream is a member. */
static int on_listener(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                       void *userdata)
{
    struct scene *scene = userdata;
    struct member *member;

    (void)loop;
    if (event->kind != FDMUX_STREAM_ACCEPTED || scene->accepted == MEMBERS)
        return 0;
    member = &scene->members[scene->accepted++];
    member->token = event->stream;
    return happen(member);
}

/* Members of kind DESTROYED are all removed inside a batch. */
static int end_all(struct fdmux_loop *loop, void *userdata)
{
    struct scene *scene = userdata;

    if (loop == NULL)
        return 0;
    for (int i = 0; i < MEMBERS; i++)
        CHECK_EQ(fdmux_io_remove(loop, scene->members[i].token), 0);
    return 0;
}

/* ---- ends ---------------------------------------------------------------------- */

/* No call of this member may follow, if its kind can be removed. */
static void end_member(struct scene *scene, struct member *member)
{
    struct fdmux_loop *loop = scene->loop;

    if (member->token == 0 || member->is_ended)
        return;
    if (scene->kind == IO)
        CHECK_EQ(fdmux_io_remove(loop, member->token), 0);
    else if (scene->kind == TIMER)
        CHECK_EQ(fdmux_timer_remove(loop, member->token), 0);
    else if (scene->kind == DATA || scene->kind == ACCEPTED)
        CHECK_EQ(fdmux_stream_close(loop, member->token, FDMUX_STREAM_DROP), 0);
    else
        return;
    member->is_ended = true;
}

static struct member *neighbour(struct member *self)
{
    return &self->scene->members[(self->place + 1) % MEMBERS];
}

/* ---- actions ------------------------------------------------------------------- */

static void stop_self(struct scene *scene, struct member *self)
{
    end_member(scene, self);
}

static void stop_ready(struct scene *scene, struct member *self)
{
    end_member(scene, neighbour(self));
}

static void stop_idle(struct scene *scene, struct member *self)
{
    (void)self;
    CHECK_EQ(fdmux_io_remove(scene->loop, scene->idle_io), 0);
    CHECK_EQ(fdmux_timer_remove(scene->loop, scene->idle_timer), 0);
    if (scene->kind != DESTROYED) /* `destroyed` runs after the batch */
        CHECK_EQ(scene->idle.destroyed, 0);
}

/* Close the descriptor before removing the watcher, as careless programs do, and reuse
 * its number. */
static void close_fd_of(struct scene *scene, struct member *member)
{
    if (scene->kind == IO && !member->is_ended) {
        CHECK_EQ(close(member->fds[0]), 0);
        CHECK_EQ(dup2(scene->extra.read_fd, member->fds[0]), member->fds[0]);
    }
    end_member(scene, member);
}

static void close_self(struct scene *scene, struct member *self)
{
    close_fd_of(scene, self);
}

static void close_other(struct scene *scene, struct member *self)
{
    close_fd_of(scene, neighbour(self));
}

static void close_loop(struct scene *scene, struct member *self)
{
    (void)self;
    (void)fdmux_loop_destroy(scene->loop); /* takes effect at the end of the dispatch */
    scene->is_over = true;
}

static void add_same(struct scene *scene, struct member *self)
{
    int fd = scene->kind == IO ? self->fds[0] : scene->idle_channel.read_fd;

    (void)watch(scene->loop, fd, FDMUX_READ, &scene->added);
}

static void add_new(struct scene *scene, struct member *self)
{
    (void)self;
    feed(&scene->extra);
    (void)watch(scene->loop, scene->extra.read_fd, FDMUX_READ, &scene->added);
}

static void modify(struct scene *scene, struct member *self)
{
    CHECK_EQ(fdmux_io_update(scene->loop, scene->idle_io, 0), 0);
    CHECK_EQ(fdmux_io_update(scene->loop, scene->idle_io, FDMUX_READ | FDMUX_PRIORITY),
             0);
    if (scene->kind == IO) {
        CHECK_EQ(fdmux_io_update(scene->loop, self->token, 0), 0);
        CHECK_EQ(fdmux_io_update(scene->loop, neighbour(self)->token, FDMUX_READ), 0);
    }
}

static void rearm(struct scene *scene, struct member *self)
{
    uint64_t timer = scene->kind == TIMER ? self->token : scene->idle_timer;

    CHECK_EQ(fdmux_timer_arm(scene->loop, timer, 0, 0), 0);
}

static void post_more(struct scene *scene, struct member *self)
{
    (void)self;
    CHECK_EQ(fdmux_post(scene->loop, count_post, &scene->added), 0);
}

static void run(struct scene *scene, struct member *self)
{
    (void)self;
    CHECK_EQ(fdmux_loop_dispatch(scene->loop, 0, NULL, 0), -EBUSY);
    CHECK_EQ(fdmux_loop_run(scene->loop), -EBUSY);
}

static void fork_child(struct scene *scene, struct member *self)
{
    pid_t child = fork();
    int status;

    (void)self;
    CHECK(child >= 0);
    if (child == 0)
        _exit(fdmux_loop_dispatch(scene->loop, 0, NULL, 0) == -ECHILD &&
                      fdmux_io_remove(scene->loop, scene->idle_io) == -ECHILD
                  ? 0
                  : 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static int fail_later(struct fdmux_loop *loop, void *userdata)
{
    (void)userdata;
    return loop == NULL ? 0 : -EIO;
}

static void raise_error(struct scene *scene, struct member *self)
{
    (void)self;
    if (scene->kind == DESTROYED)
        CHECK_EQ(fdmux_post(scene->loop, fail_later, NULL), 0);
    else
        scene->result = -EIO;
}

/* ---- scenes -------------------------------------------------------------------- */

static void open_member(struct scene *scene, struct member *member)
{
    struct fdmux_io_options io = {.struct_size = sizeof io,
                                  .events = FDMUX_READ,
                                  .fn = on_io,
                                  .userdata = member,
                                  .destroyed = on_destroyed};
    struct fdmux_timer_options timer = {.struct_size = sizeof timer,
                                        .fn = on_timer,
                                        .userdata = member,
                                        .destroyed = on_destroyed};
    struct fdmux_stream_options stream = {.struct_size = sizeof stream,
                                          .fn = on_stream,
                                          .userdata = member,
                                          .destroyed = on_destroyed};

    if (scene->kind == IO || scene->kind == DESTROYED || scene->kind == DATA)
        open_sockets(member->fds);
    io.fd = member->fds[0];
    if (scene->kind == IO || scene->kind == DESTROYED)
        CHECK_EQ(fdmux_io_add(scene->loop, &io, &member->token), 0);
    if (scene->kind == TIMER) {
        CHECK_EQ(fdmux_timer_add(scene->loop, &timer, &member->token), 0);
        CHECK_EQ(fdmux_timer_arm(scene->loop, member->token, 0, 0), 0);
    }
    if (scene->kind == POST)
        CHECK_EQ(fdmux_post(scene->loop, on_post, member), 0);
    if (scene->kind == DATA)
        CHECK_EQ(fdmux_stream_add(scene->loop, member->fds[0], &stream, &member->token),
                 0);
    if (scene->kind == IO || scene->kind == DATA)
        CHECK_EQ(send(member->fds[1], "x", 1, 0), 1);
}

static void open_listener(struct scene *scene)
{
    struct fdmux_stream_options options = {
        .struct_size = sizeof options, .fn = on_listener, .userdata = scene};
    struct fdmux_stream_address address = {.struct_size = sizeof address,
                                           .host = "127.0.0.1"};
    struct sockaddr_in bound;
    socklen_t size = sizeof bound;

    CHECK_EQ(fdmux_stream_listen_at(scene->loop, &address, &options, &scene->listener),
             0);
    CHECK_EQ(getsockname(fdmux_stream_fd(scene->loop, scene->listener),
                         (struct sockaddr *)&bound, &size),
             0);
    for (int i = 0; i < MEMBERS; i++) {
        scene->members[i].fds[1] = connect_client(ntohs(bound.sin_port));
        CHECK(scene->members[i].fds[1] >= 0);
    }
}

static void open_scene(struct scene *scene, enum kind kind)
{
    scene->kind = kind;
    scene->loop = check_open_loop();
    scene->idle_channel = open_channel();
    scene->extra = open_channel();
    scene->idle_io =
        watch(scene->loop, scene->idle_channel.read_fd, FDMUX_READ, &scene->idle);
    scene->idle_timer = add_timer(scene->loop, &scene->idle);
    for (int i = 0; i < MEMBERS; i++) {
        scene->members[i] =
            (struct member){.scene = scene, .place = i, .fds = {-1, -1}};
        open_member(scene, &scene->members[i]);
    }
    if (kind == DESTROYED)
        CHECK_EQ(fdmux_post(scene->loop, end_all, scene), 0);
    if (kind == ACCEPTED)
        open_listener(scene);
}

static void close_scene(struct scene *scene)
{
    for (int i = 0; i < MEMBERS; i++) {
        struct member *member = &scene->members[i];

        if (scene->kind == IO || scene->kind == TIMER || scene->kind == DATA)
            CHECK_EQ(member->destroyed, 1);
        if (member->fds[0] >= 0 && scene->kind != DATA)
            CHECK_EQ(close(member->fds[0]), 0);
        if (member->fds[1] >= 0)
            CHECK_EQ(close(member->fds[1]), 0);
    }
    CHECK_EQ(scene->idle.destroyed, 2);
    close_channel(&scene->idle_channel);
    close_channel(&scene->extra);
    free(scene);
}

/* Dispatch until every member was called. The action's error is returned exactly
 * once. */
static void serve_scene(struct scene *scene, bool is_failing)
{
    int errors = 0;

    for (int i = 0; i < 20 && !scene->is_over; i++) {
        int r = fdmux_loop_dispatch(scene->loop, 0, NULL, 0);

        if (scene->is_over)
            CHECK_EQ(r, -ESTALE);
        else if (r < 0)
            errors += r == -EIO ? 1 : 100;
        if (!scene->is_over)
            CHECK_EQ(fdmux_testing_verify(scene->loop), 0);
        scene->result = 0;
    }
    CHECK(scene->has_acted);
    CHECK_EQ(errors, is_failing ? 1 : 0);
}

static void check_others(const struct scene *scene)
{
    for (int i = 0; i < MEMBERS && !scene->is_over; i++) {
        const struct member *member = &scene->members[i];

        if (!member->is_ended)
            CHECK(member->calls >= 1);
    }
}

static void play(enum kind kind, int place,
                 void (*action)(struct scene *, struct member *))
{
    struct scene *scene = calloc(1, sizeof *scene);

    CHECK(scene != NULL);
    scene->place = place;
    scene->action = action;
    open_scene(scene, kind);
    serve_scene(scene, action == raise_error);
    check_others(scene);
    if (!scene->is_over)
        (void)fdmux_loop_destroy(scene->loop);
    scene->is_over = true;
    close_scene(scene);
}

static void play_all(void (*action)(struct scene *, struct member *))
{
    for (int kind = 0; kind < KIND_COUNT; kind++)
        for (int place = 0; place < MEMBERS; place++)
            play((enum kind)kind, place, action);
}

TEST(callbacks_that_stop_themselves)
{
    play_all(stop_self);
}

TEST(callbacks_that_stop_another_of_their_batch)
{
    play_all(stop_ready);
}

TEST(callbacks_that_stop_what_is_idle)
{
    play_all(stop_idle);
}

TEST(callbacks_that_close_their_own_descriptor)
{
    play_all(close_self);
}

TEST(callbacks_that_close_the_descriptor_of_another)
{
    play_all(close_other);
}

TEST(callbacks_that_destroy_the_loop)
{
    play_all(close_loop);
}

TEST(callbacks_that_watch_the_same_descriptor)
{
    play_all(add_same);
}

TEST(callbacks_that_watch_a_new_descriptor)
{
    play_all(add_new);
}

TEST(callbacks_that_modify_watchers)
{
    play_all(modify);
}

TEST(callbacks_that_arm_timers)
{
    play_all(rearm);
}

TEST(callbacks_that_post)
{
    play_all(post_more);
}

TEST(callbacks_that_run_the_loop)
{
    play_all(run);
}

TEST(callbacks_that_fork)
{
    play_all(fork_child);
}

TEST(callbacks_that_fail)
{
    play_all(raise_error);
}
