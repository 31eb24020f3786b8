/* test_misuse_options.c: structs of a wrong size, reserved fields that are not zero,
 * unknown flags, and NULL pointers, for every function that takes them.
 *
 * Each gives -EINVAL, registers nothing and writes no result. The same struct without
 * the mistake is accepted, so no case passes for another reason. */
#include "stream_fixtures.h"

#include <stddef.h>
#include <unistd.h>

#define WORDS_MAX 2

union any_options {
    size_t struct_size;
    struct fdmux_loop_options loop;
    struct fdmux_io_options io;
    struct fdmux_timer_options timer;
    struct fdmux_hook_options hook;
    struct fdmux_loop_stats loop_stats;
    struct fdmux_stream_options stream;
    struct fdmux_stream_address address;
    struct fdmux_stream_stats stream_stats;
    struct fdmux_stream_handler handler;
};

/* What the calls need besides their options. */
struct scene {
    struct fdmux_loop *loop;
    struct witness witness;
    int fds[2];
    struct channel channel;
    uint64_t stream;
    uint64_t other;
};

/* A function and its struct. `words` are the fields in which only the `known` bits may
 * be set. */
struct site {
    const char *name;
    size_t size;
    void (*fill)(struct scene *scene, union any_options *options);
    int (*call)(struct scene *scene, union any_options *options);
    struct {
        size_t offset;
        uint32_t known;
    } words[WORDS_MAX];
    bool may_be_null;
};

/* ---- the sites ------------------------------------------------------------------ */

static void fill_nothing(struct scene *scene, union any_options *options)
{
    (void)scene, (void)options;
}

static int create(struct scene *scene, union any_options *options)
{
    struct fdmux_loop *loop = NULL;
    int r = fdmux_loop_create(options == NULL ? NULL : &options->loop, &loop);

    (void)scene;
    CHECK((r == 0) == (loop != NULL));
    fdmux_loop_destroy(loop);
    return r;
}

static void fill_io(struct scene *scene, union any_options *options)
{
    options->io.fd = scene->channel.read_fd;
    options->io.fn = count_io;
}

static int add_io(struct scene *scene, union any_options *options)
{
    uint64_t io = 7;
    int r = fdmux_io_add(scene->loop, (void *)options, &io);

    if (r == 0)
        CHECK_EQ(fdmux_io_remove(scene->loop, io), 0);
    else
        CHECK_EQ(io, 7);
    return r;
}

static void fill_timer(struct scene *scene, union any_options *options)
{
    (void)scene;
    options->timer.fn = count_timer;
}

static int make_timer(struct scene *scene, union any_options *options)
{
    uint64_t timer = 7;
    int r = fdmux_timer_add(scene->loop, (void *)options, &timer);

    if (r == 0)
        CHECK_EQ(fdmux_timer_remove(scene->loop, timer), 0);
    else
        CHECK_EQ(timer, 7);
    return r;
}

static void fill_hook(struct scene *scene, union any_options *options)
{
    (void)scene;
    options->hook.fn = count_hook;
}

static int make_hook(struct scene *scene, union any_options *options)
{
    uint64_t hook = 7;
    int r = fdmux_hook_add(scene->loop, (void *)options, &hook);

    if (r == 0)
        CHECK_EQ(fdmux_hook_remove(scene->loop, hook), 0);
    else
        CHECK_EQ(hook, 7);
    return r;
}

static int loop_stats(struct scene *scene, union any_options *options)
{
    return fdmux_loop_stats(scene->loop, (void *)options);
}

static int ignore_event(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                        void *userdata)
{
    (void)loop, (void)event, (void)userdata;
    return 0;
}

static void fill_stream(struct scene *scene, union any_options *options)
{
    (void)scene;
    options->stream.fn = ignore_event;
}

typedef int (*take_socket_fn)(struct fdmux_loop *loop, int fd,
                              const struct fdmux_stream_options *options,
                              uint64_t *ret_stream);

/* On success the stream owns the socket, so it gets a duplicate. */
static int take_socket(struct scene *scene, union any_options *options,
                       take_socket_fn take)
{
    uint64_t stream = 7;
    int fd = dup(scene->fds[0]);
    int r = take(scene->loop, fd, (void *)options, &stream);

    if (r < 0) {
        CHECK_EQ(stream, 7);
        CHECK_EQ(close(fd), 0);
    }
    return r;
}

static int stream_add(struct scene *scene, union any_options *options)
{
    return take_socket(scene, options, fdmux_stream_add);
}

static int stream_listen(struct scene *scene, union any_options *options)
{
    return take_socket(scene, options, fdmux_stream_listen);
}

static int stream_connect(struct scene *scene, union any_options *options)
{
    return take_socket(scene, options, fdmux_stream_connect);
}

static const struct fdmux_stream_address loopback = {
    .struct_size = sizeof loopback,
    .host = "127.0.0.1",
};

static int listen_at(struct scene *scene, union any_options *options)
{
    uint64_t stream = 7;
    int r = fdmux_stream_listen_at(scene->loop, &loopback, (void *)options, &stream);

    CHECK((r == 0) == (stream != 7));
    return r;
}

/* Nothing listens at port 0; loopback reports this at once or later. */
static int connect_to(struct scene *scene, union any_options *options)
{
    uint64_t stream = 7;
    int r = fdmux_stream_connect_to(scene->loop, &loopback, (void *)options, &stream);

    CHECK((r == 0) == (stream != 7));
    return r == -ECONNREFUSED || r == -EADDRNOTAVAIL ? 0 : r;
}

static const struct fdmux_stream_options plain_stream = {
    .struct_size = sizeof plain_stream,
    .fn = ignore_event,
};

static void fill_address(struct scene *scene, union any_options *options)
{
    (void)scene;
    options->address.host = "127.0.0.1";
}

static int listen_at_address(struct scene *scene, union any_options *options)
{
    uint64_t stream = 7;
    int r =
        fdmux_stream_listen_at(scene->loop, (void *)options, &plain_stream, &stream);

    CHECK((r == 0) == (stream != 7));
    return r;
}

static int connect_to_address(struct scene *scene, union any_options *options)
{
    uint64_t stream = 7;
    int r =
        fdmux_stream_connect_to(scene->loop, (void *)options, &plain_stream, &stream);

    CHECK((r == 0) == (stream != 7));
    return r == -ECONNREFUSED || r == -EADDRNOTAVAIL ? 0 : r;
}

static int stream_stats(struct scene *scene, union any_options *options)
{
    return fdmux_stream_stats(scene->loop, scene->stream, (void *)options);
}

/* This uses a new stream, since the scene's stream must keep its witness. */
static void fill_handler(struct scene *scene, union any_options *options)
{
    (void)scene;
    options->handler.fn = ignore_event;
}

static int set_handler(struct scene *scene, union any_options *options)
{
    return fdmux_stream_set_handler(scene->loop, scene->other, (void *)options);
}

#define EVENTS_KNOWN                                                                   \
    (FDMUX_READ | FDMUX_WRITE | FDMUX_PRIORITY | FDMUX_PEER_CLOSED | FDMUX_HANGUP |    \
     FDMUX_ERROR | FDMUX_EDGE | FDMUX_ONESHOT | FDMUX_EXCLUSIVE)
#define SIZE(member) sizeof(((union any_options *)0)->member)
#define STREAM_WORDS                                                                   \
    {                                                                                  \
        {                                                                              \
            offsetof(struct fdmux_stream_options, flags), FDMUX_STREAM_BORROW          \
        }                                                                              \
    }
#define ADDRESS_WORDS                                                                  \
    {                                                                                  \
        {                                                                              \
            offsetof(struct fdmux_stream_address, flags), FDMUX_STREAM_REUSE_PORT      \
        }                                                                              \
    }

static const struct site sites[] = {
    {"loop_create",
     SIZE(loop),
     fill_nothing,
     create,
     {{offsetof(struct fdmux_loop_options, flags), 0}},
     true},
    {"io_add",
     SIZE(io),
     fill_io,
     add_io,
     {{offsetof(struct fdmux_io_options, events), EVENTS_KNOWN},
      {offsetof(struct fdmux_io_options, flags), 0}},
     false},
    {"timer_add",
     SIZE(timer),
     fill_timer,
     make_timer,
     {{offsetof(struct fdmux_timer_options, flags), 0}},
     false},
    {"hook_add", SIZE(hook), fill_hook, make_hook, {{0}}, false},
    {"loop_stats", SIZE(loop_stats), fill_nothing, loop_stats, {{0}}, false},
    {"stream_add", SIZE(stream), fill_stream, stream_add, STREAM_WORDS, false},
    {"stream_listen", SIZE(stream), fill_stream, stream_listen, STREAM_WORDS, false},
    {"stream_connect", SIZE(stream), fill_stream, stream_connect, STREAM_WORDS, false},
    {"stream_listen_at", SIZE(stream), fill_stream, listen_at, STREAM_WORDS, false},
    {"stream_connect_to", SIZE(stream), fill_stream, connect_to, STREAM_WORDS, false},
    {"address of listen_at", SIZE(address), fill_address, listen_at_address,
     ADDRESS_WORDS, false},
    {"address of connect_to", SIZE(address), fill_address, connect_to_address,
     ADDRESS_WORDS, false},
    {"stream_stats", SIZE(stream_stats), fill_nothing, stream_stats, {{0}}, false},
    {"stream_set_handler", SIZE(handler), fill_handler, set_handler, {{0}}, false},
};

#define SITE_COUNT (sizeof sites / sizeof *sites)

/* ---- the cases ------------------------------------------------------------------ */

static void open_scene(struct scene *scene)
{
    memset(scene, 0, sizeof *scene);
    scene->loop = check_open_loop();
    open_sockets(scene->fds);
    scene->channel = open_channel();
    scene->stream = add_stream(scene->loop, dup(scene->fds[0]), &scene->witness);
    CHECK_EQ(
        fdmux_stream_add(scene->loop, dup(scene->fds[0]), &plain_stream, &scene->other),
        0);
}

static void close_scene(struct scene *scene)
{
    VERIFY(scene->loop);
    fdmux_loop_destroy(scene->loop);
    close_channel(&scene->channel);
    CHECK_EQ(close(scene->fds[0]) + close(scene->fds[1]), 0);
    CHECK_EQ(scene->witness.destroyed, 1);
}

/* Fill in the options of a site: correct ones, or with a wrong size or field. */
static void fill(struct scene *scene, const struct site *site,
                 union any_options *options)
{
    memset(options, 0, sizeof *options);
    site->fill(scene, options);
    options->struct_size = site->size;
}

static void expect(struct scene *scene, const struct site *site,
                   union any_options *options, int expected)
{
    struct fdmux_loop_stats before = stats_of(scene->loop);
    int fds = check_open_fds();
    struct fdmux_loop_stats after;

    check_equal(site->call(scene, options), expected, __FILE__, __LINE__, site->name);
    if (expected == 0)
        return;
    after = stats_of(scene->loop);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    CHECK_EQ(check_open_fds(), fds);
}

TEST(structure_of_any_other_size_is_e2big)
{
    static struct scene scene;
    union any_options options;

    open_scene(&scene);
    for (const struct site *site = sites; site < sites + SITE_COUNT; site++) {
        size_t wrong[] = {
            0,       1, sizeof(size_t), site->size - 1, site->size + 1, 2 * site->size,
            SIZE_MAX};

        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            fill(&scene, site, &options);
            options.struct_size = wrong[i];
            expect(&scene, site, &options, -E2BIG);
        }
        fill(&scene, site, &options);
        expect(&scene, site, &options, 0);
    }
    close_scene(&scene);
}

TEST(no_structure_is_efault_where_one_must_be)
{
    static struct scene scene;

    open_scene(&scene);
    for (const struct site *site = sites; site < sites + SITE_COUNT; site++)
        expect(&scene, site, NULL, site->may_be_null ? 0 : -EFAULT);
    close_scene(&scene);
}

static void expect_unknown_bits(struct scene *scene, const struct site *site,
                                size_t offset, uint32_t known)
{
    union any_options options;

    for (uint32_t bit = 1; bit != 0; bit <<= 1) {
        fill(scene, site, &options);
        memcpy((char *)&options + offset, &bit, sizeof bit);
        if ((bit & known) == 0)
            expect(scene, site, &options, -EINVAL);
    }
}

TEST(every_unknown_flag_and_reserved_bit_is_einval)
{
    static struct scene scene;

    open_scene(&scene);
    for (const struct site *site = sites; site < sites + SITE_COUNT; site++) {
        for (int i = 0; i < WORDS_MAX; i++) {
            if (site->words[i].offset != 0)
                expect_unknown_bits(&scene, site, site->words[i].offset,
                                    site->words[i].known);
        }
    }
    close_scene(&scene);
}

TEST(every_unknown_flag_of_update_and_close_is_einval)
{
    static struct scene scene;
    struct calls calls = {0};
    uint64_t io;

    open_scene(&scene);
    io = watch(scene.loop, scene.channel.read_fd, FDMUX_READ, &calls);
    for (uint32_t bit = 1; bit != 0; bit <<= 1) {
        if ((bit & EVENTS_KNOWN) == 0)
            CHECK_EQ(fdmux_io_update(scene.loop, io, bit), -EINVAL);
        if (bit != FDMUX_STREAM_DROP)
            CHECK_EQ(fdmux_stream_close(scene.loop, scene.stream, bit), -EINVAL);
    }
    feed(&scene.channel);
    CHECK_EQ(poll_once(scene.loop), 0);
    CHECK_EQ(calls.count, 1); /* unchanged */
    CHECK_EQ(scene.witness.destroyed, 0);
    close_scene(&scene);
}

/* A NULL pointer for a result or for data is refused. */
TEST(null_for_a_result_or_data_is_einval)
{
    static struct scene scene;
    struct fdmux_loop *loop;
    union any_options options;
    int fds;

    open_scene(&scene);
    loop = scene.loop;
    fds = check_open_fds();
    fill(&scene, &sites[1], &options);
    CHECK_EQ(fdmux_io_add(loop, &options.io, NULL), -EFAULT);
    fill(&scene, &sites[2], &options);
    CHECK_EQ(fdmux_timer_add(loop, &options.timer, NULL), -EFAULT);
    fill(&scene, &sites[3], &options);
    CHECK_EQ(fdmux_hook_add(loop, &options.hook, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_create(NULL, NULL), -EFAULT);
    CHECK_EQ(fdmux_loop_next_deadline(loop, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_add(loop, scene.fds[0], &plain_stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_listen(loop, scene.fds[0], &plain_stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_connect(loop, scene.fds[0], &plain_stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_listen_at(loop, &loopback, &plain_stream, NULL), -EFAULT);
    CHECK_EQ(fdmux_stream_write(loop, scene.stream, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_stream_peer(loop, scene.stream, NULL, 28), -EFAULT);
    CHECK_EQ(fdmux_stream_write_batch(loop, NULL, 1), -EFAULT);
    CHECK_EQ(fdmux_loop_dispatch(loop, 0, NULL, 1), -EFAULT);
    CHECK_EQ(check_open_fds(), fds);
    close_scene(&scene);
}
