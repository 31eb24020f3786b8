/* test_stream_prefetch.c: before several streams get their events, the loop passes
 * their userdata to a function that prefetches. */
#include "stream_fixtures.h"

#include <errno.h>
#include <unistd.h>

enum { COUNT = 20 };

static struct {
    int called; /* since the last count */
    uint32_t largest;
    const struct witness *first; /* of the witnesses that may be passed */
    const struct witness *end;
    int strangers; /* passed, but none of these */
    int late; /* passed after its event */
    bool closed; /* by close_others */
} seen;

static void note_prefetch(void *const *userdata, uint32_t count)
{
    seen.called += (int)count;
    if (count > seen.largest)
        seen.largest = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct witness *witness = userdata[i];

        seen.strangers += witness < seen.first || witness >= seen.end;
        seen.late += witness->counts[FDMUX_STREAM_DATA] > 0;
    }
}

struct crowd {
    struct fdmux_loop *loop;
    struct witness witnesses[COUNT];
    uint64_t streams[COUNT];
    int peers[COUNT];
};

static void open_crowd(struct crowd *crowd, struct fdmux_loop *loop)
{
    *crowd = (struct crowd){.loop = loop};
    seen.called = seen.strangers = seen.late = 0;
    seen.closed = false;
    seen.largest = 0;
    seen.first = crowd->witnesses;
    seen.end = crowd->witnesses + COUNT;
    for (int i = 0; i < COUNT; i++) {
        int fds[2];

        open_sockets(fds);
        crowd->peers[i] = fds[1];
        crowd->streams[i] = add_stream(loop, fds[0], &crowd->witnesses[i]);
    }
}

static void send_to(const struct crowd *crowd, int count)
{
    for (int i = 0; i < count; i++)
        CHECK_EQ(write(crowd->peers[i], "x", 1), 1);
}

static void close_crowd(struct crowd *crowd)
{
    CHECK_EQ(seen.strangers, 0);
    fdmux_loop_destroy(crowd->loop);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(close(crowd->peers[i]), 0);
}

TEST(streams_that_are_ready_together_are_prefetched)
{
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    send_to(&crowd, COUNT);
    serve_all(crowd.loop);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(crowd.witnesses[i].counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(seen.called, COUNT);
    CHECK(seen.largest > 1);
    CHECK_EQ(seen.late, 0);
    close_crowd(&crowd);
}

TEST(stream_that_is_ready_alone_is_not_prefetched)
{
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    send_to(&crowd, 1);
    serve_all(crowd.loop);
    CHECK_EQ(crowd.witnesses[0].counts[FDMUX_STREAM_DATA], 1);
    CHECK_EQ(seen.called, 0);
    close_crowd(&crowd);
}

static int note_other(struct fdmux_loop *loop, const struct fdmux_stream_event *event,
                      void *userdata)
{
    return note_event(loop, event, userdata);
}

static void set_other_handler(const struct crowd *crowd, int index)
{
    struct fdmux_stream_handler handler = {
        .struct_size = sizeof handler,
        .fn = note_other,
        .userdata = (void *)(uintptr_t)&crowd->witnesses[index],
        .destroyed = note_destroyed,
    };

    CHECK_EQ(fdmux_stream_set_handler(crowd->loop, crowd->streams[index], &handler), 0);
}

TEST(streams_of_other_functions_are_not_prefetched)
{
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    seen.first = crowd.witnesses + 4;
    for (int i = 0; i < 4; i++)
        set_other_handler(&crowd, i);
    send_to(&crowd, COUNT);
    serve_all(crowd.loop);
    CHECK_EQ(crowd.witnesses[0].counts[FDMUX_STREAM_DATA], 1);
    CHECK(seen.called > 0);
    close_crowd(&crowd);
}

TEST(watchers_that_are_no_streams_are_not_prefetched)
{
    struct calls calls = {0};
    struct channel channels[4];
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    for (int i = 0; i < 4; i++) {
        channels[i] = open_channel();
        (void)watch(crowd.loop, channels[i].read_fd, FDMUX_READ, &calls);
        feed(&channels[i]);
    }
    send_to(&crowd, COUNT);
    serve_until(crowd.loop, &crowd.witnesses[COUNT - 1].counts[FDMUX_STREAM_DATA], 1);
    CHECK(seen.called > 0);
    CHECK(calls.count >= 4);
    close_crowd(&crowd);
    for (int i = 0; i < 4; i++)
        close_channel(&channels[i]);
}

/* Its first event closes the streams that were ready too: their userdata may be freed
 * from then on. */
static int close_others(struct witness *witness, const struct fdmux_stream_event *event)
{
    const struct crowd *crowd = witness->extra;

    if (event->kind != FDMUX_STREAM_DATA)
        return 0;
    for (int i = 0; i < COUNT; i++) {
        if (crowd->streams[i] != event->stream)
            (void)fdmux_stream_close(crowd->loop, crowd->streams[i], FDMUX_STREAM_DROP);
    }
    seen.called = 0;
    seen.closed = true;
    return 0;
}

TEST(stream_that_was_closed_in_this_batch_is_not_prefetched)
{
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    for (int i = 0; i < COUNT; i++) {
        crowd.witnesses[i].reaction = close_others;
        crowd.witnesses[i].extra = &crowd;
    }
    send_to(&crowd, COUNT);
    serve_all(crowd.loop);
    CHECK(seen.closed);
    CHECK_EQ(seen.called, 0);
    close_crowd(&crowd);
}

TEST(prefetching_ends_with_null)
{
    struct crowd crowd;

    open_crowd(&crowd, check_open_loop());
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, note_prefetch), 0);
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, NULL, note_prefetch), -EINVAL);
    CHECK_EQ(fdmux_stream_set_prefetch(crowd.loop, note_event, NULL), 0);
    send_to(&crowd, COUNT);
    serve_all(crowd.loop);
    CHECK_EQ(seen.called, 0);
    close_crowd(&crowd);
}
